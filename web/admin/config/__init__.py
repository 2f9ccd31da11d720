"""Routes about the configuration."""
