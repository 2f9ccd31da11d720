"""Counts, windows, percentiles of finished requests. Knows no alert, no metric name, no page."""
