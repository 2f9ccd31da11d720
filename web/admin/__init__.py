"""The orchestrator's REST API: the table of its routes, and what is made from the table.

Knows no live client and no lane.
"""
