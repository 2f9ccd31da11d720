"""Routes about the queue and what is in flight."""
