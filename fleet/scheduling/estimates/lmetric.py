"""What to go by where predictions are not to be trusted: LMetric (arXiv 2603.15202), a product without parameters.

Formula: uncached prefill tokens x batch size, the request itself counted in both; the smallest is best. Units: tokens
(not seconds: it compares candidates of one request, and adds to nothing).

What it is wrong about: it knows no speeds and no loads, so among servers of different kinds it prefers none; a
candidate that would have to load must be ranked behind those that need not.
"""

from __future__ import annotations


def lmetric(tokens: float, hit: float, streams: int) -> float:
    """The metric of a request of so many prompt tokens, `hit` of them cached, with `streams` open beside it."""
    return max(1.0, tokens - hit) * (max(streams, 0) + 1)
