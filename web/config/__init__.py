"""Configuration files on disk: read, written, watched."""
