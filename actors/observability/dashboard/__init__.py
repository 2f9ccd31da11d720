"""The live feed: snapshots and deltas for whoever looks at the fleet. Knows no websocket and no HTTP."""
