"""The dispatcher: the one task that owns the queue and gives out slots. Knows no sockets and no bytes."""
