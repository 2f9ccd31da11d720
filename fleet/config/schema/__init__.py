"""What may be set, with types, bounds and defaults. Does not know where a value comes from."""
