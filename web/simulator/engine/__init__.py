"""How the simulated server works on a request, in tasks and bytes. Knows no route."""
