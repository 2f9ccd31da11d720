"""The configuration as the running process has it: its files (keys and certificates too), settings, and their changes.

Knows no HTTP.
"""
