"""Routes about models and jobs."""
