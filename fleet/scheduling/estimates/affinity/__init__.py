"""Which server has the beginning of a prompt in its cache. Keeps no text, and nothing that others could use."""
