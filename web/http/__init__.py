"""HTTP as all ports speak it: errors, replies, targets, units. Knows no route."""
