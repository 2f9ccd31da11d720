"""Who gets the next slot, and where: queue, index of servers, policy, bans. No task, no clock, no dice of its own."""
