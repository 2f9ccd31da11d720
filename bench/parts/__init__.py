"""What one part of the fleet costs by itself, without the network. Knows no other proxy."""
