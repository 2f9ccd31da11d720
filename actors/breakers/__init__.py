"""Circuit breakers as actors: one task per server and model that failed lately, and their recovery tests.

Knows no HTTP.
"""
