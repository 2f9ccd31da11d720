"""What the simulated server answers, one module per dialect or topic. Knows no socket."""
