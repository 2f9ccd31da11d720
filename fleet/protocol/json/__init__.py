"""JSON as Go reads it, in bounded steps. Knows no field of any API."""
