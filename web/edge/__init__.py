"""The edge: the only part of the fleet that touches the network.

Its own HTTP/1.1 acceptor on every listener. It serves the hot inference requests itself and relays every other one to
the Quart app on a private Unix socket.
"""
