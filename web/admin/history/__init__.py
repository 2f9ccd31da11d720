"""What finished requests tell: lists, figures over time, usage. Asks the history, and adds up nothing by itself."""
