"""The referee: routing policies against each other and an oracle, on simulated servers. See README.md."""
