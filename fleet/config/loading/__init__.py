"""From text, environment and flags to one checked configuration. Opens no file."""
