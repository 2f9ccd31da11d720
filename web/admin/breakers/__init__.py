"""Routes about breakers and the log of recoveries. They order and show; when a breaker opens they do not know."""
