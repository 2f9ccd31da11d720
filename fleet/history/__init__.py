"""What is kept of finished requests: rows, sums over time, and how they are merged. Writes nothing, reads no clock."""
