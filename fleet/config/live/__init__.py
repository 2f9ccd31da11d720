"""A configuration that changes while it is in force: what changed, when it acts, how it is written back."""
