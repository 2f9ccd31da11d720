"""What outlives the process: a journal in memory and its writer to SQLite. Does not know what the documents mean."""
