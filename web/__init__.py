"""The front end: translates HTTP into calls to the actors and back.

Decides nothing about a request but who may make it.
"""
