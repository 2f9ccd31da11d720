"""The scenarios, each a function from a variant to a setup; numbered as in the design of the routing."""
