"""Routes about figures, health, alerts and logs."""
