"""Routes about servers and bans. They do not choose servers for requests."""
