"""The health of the whole fleet in one line, the worst first, and the words for it."""
