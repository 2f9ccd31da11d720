"""Routes about breakers and the log of recoveries."""
