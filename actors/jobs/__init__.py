"""Work on models that outlives the request that asked for it: pulls, warm-ups, copies, deletions.

Knows no HTTP of clients.
"""
