"""What disturbs the data plane: the same load with it and without it. Knows no other proxy."""
