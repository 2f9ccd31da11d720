"""The process on its machine: sockets, descriptors, signals, logs, watchdog. Knows no route."""
