"""Routes about models and jobs. They know of servers only who has what."""
