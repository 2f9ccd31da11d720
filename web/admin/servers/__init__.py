"""Routes about servers and bans."""
