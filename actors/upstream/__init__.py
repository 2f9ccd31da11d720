"""The way to a backend: connections, one attempt, control calls. Knows nothing of queues, breakers or clients."""
