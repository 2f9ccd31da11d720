"""Between Hypercorn, Quart and the application: connections, bodies, what wraps a route. Knows no topic of the API."""
