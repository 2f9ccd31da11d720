"""Routes about figures, health, alerts and logs. They show what others have counted and found."""
