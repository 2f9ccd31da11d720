"""Files for Prometheus and the page for whoever is woken up, made from the rules."""
