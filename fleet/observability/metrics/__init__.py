"""The metrics: one table of names, the instruments behind it, their exposition. Knows no actor."""
