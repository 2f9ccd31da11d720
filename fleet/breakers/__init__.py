"""The circuit breaker as a state machine, and what it is judged by. Knows no task, no clock, no message."""
