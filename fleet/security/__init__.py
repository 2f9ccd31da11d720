"""Keys, roles, origins, addresses, secrets: the rules. Knows no request but its headers."""
