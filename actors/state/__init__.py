"""What the actors share and what outlives their crashes: cells, leases, tickets, messages, totals.

Runs no task of its own but the log of requests.
"""
