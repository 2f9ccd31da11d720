"""Live clients of the dashboard: Socket.IO and plain websockets.

Does not know what is told to them, only to whom and how.
"""
