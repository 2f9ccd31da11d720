"""What an end of a request counts as, and the circuit breaker as a state machine. Knows no task, clock or message."""
