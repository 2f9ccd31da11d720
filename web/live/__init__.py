"""Live clients of the dashboard: Socket.IO and plain websockets."""
