"""Who may come in: keys, cookies, origins, rate limits. Knows no route."""
