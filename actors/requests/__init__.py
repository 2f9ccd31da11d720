"""One client request, from its ticket to the last byte: attempts, relay, failover, limits.

Does not know how clients are spoken to.
"""
