"""How many servers are in each state, whatever the states."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from web.admin.models.state import COUNTS, CountsJson, Presence, counts


@given(st.lists(st.sampled_from(list(Presence)), max_size=30), st.integers(0, 30))
def test_every_server_is_counted_once(presences: list[Presence], more: int) -> None:
    found = counts(CountsJson, presences, len(presences) + more)
    by_name = {name: getattr(found, name) for name in COUNTS.values()}
    assert found.total_servers == len(presences) + more
    assert sum(by_name.values()) == found.total_servers
    assert min(by_name.values()) >= 0
    for presence, name in COUNTS.items():
        assert by_name[name] == presences.count(presence) + (more if presence is Presence.MISSING else 0)
