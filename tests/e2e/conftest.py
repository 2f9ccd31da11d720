"""Every test here has a lane: `tests.kit.lanes`."""

from tests.kit.lanes import lane as lane
