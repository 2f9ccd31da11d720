"""The `fleet` command: its verbs, and how it speaks to people.

Whatever is slow to import is imported by the verb that needs it.
"""
