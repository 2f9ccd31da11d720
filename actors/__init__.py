"""Everything that runs: Trio tasks with mailboxes, and the only code that talks to backends."""
