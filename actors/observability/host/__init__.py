"""Probes of the machine that the fleet runs on. Knows nothing of the fleet itself."""
