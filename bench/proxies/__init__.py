"""Who is measured beside the fleet: how each is configured, installed, started and reached. Knows no load."""
