"""Trace context and the spans of a finished request. Exports nothing."""
