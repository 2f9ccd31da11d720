"""Those who route: the fleet as it is, what others do, and the oracles. Each knows only what `router.py` tells it."""
