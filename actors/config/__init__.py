"""The configuration as the running process has it: sources, settings, and the swap of one value for another.

Knows no HTTP.
"""
