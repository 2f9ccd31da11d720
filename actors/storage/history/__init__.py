"""The history of finished requests on disk: a file of its own, written once a second by a thread nobody waits for."""
