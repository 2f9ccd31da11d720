"""Rows, sums and sketches of the history."""
