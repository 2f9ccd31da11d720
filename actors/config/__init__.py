"""The configuration as the running process has it: its files (certificates too), settings, and their changes.

Knows no HTTP.
"""
