"""What clients and servers say to one another: endpoints, headers, bodies, refusals. Knows no queue and no breaker."""
