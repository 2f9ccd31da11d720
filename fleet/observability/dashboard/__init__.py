"""The snapshot of a fleet for its viewers, and the difference between two. Knows no viewer."""
