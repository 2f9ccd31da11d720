"""Routes about the configuration. They know no file: the settings read, change and write."""
