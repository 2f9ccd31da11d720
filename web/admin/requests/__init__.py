"""Routes about the queue and what is in flight. They know of a request what the log may say, never its body."""
