"""What was measured: the arithmetic on it, the verdict, the page. Measures nothing."""
