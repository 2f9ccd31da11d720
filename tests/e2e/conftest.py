"""Every test here has a lane: `tests.kit.clients.lanes`."""

from tests.kit.clients.lanes import lane as lane
