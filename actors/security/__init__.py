"""Who has a key, as one fleet knows it: the file of keys, followed while it runs. Knows no HTTP and no routes."""
