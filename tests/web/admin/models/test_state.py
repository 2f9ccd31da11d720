"""How many servers are in each state, whatever the states."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from web.admin.models.state import COUNTS, Presence, counts


@given(st.lists(st.sampled_from(list(Presence)), max_size=30), st.integers(0, 30))
def test_every_server_is_counted_once(presences: list[Presence], more: int) -> None:
    found = counts(presences, len(presences) + more)
    assert found["totalServers"] == len(presences) + more
    assert sum(found[name] for name in COUNTS.values()) == found["totalServers"]
    assert min(found.values()) >= 0
    for presence, name in COUNTS.items():
        assert found[name] == presences.count(presence) + (more if presence is Presence.MISSING else 0)
