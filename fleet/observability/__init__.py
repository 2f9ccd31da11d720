"""What can be known of a fleet, worked out from records and samples. Collects nothing by itself."""
