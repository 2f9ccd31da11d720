"""One pull on several servers looks like one pull: monotonic, one success at most, and that one last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ServerId
from fleet.models.pull_progress import MergedPull

SERVERS = [ServerId(name) for name in "abc"]
RECORDS = st.one_of(
    st.none(),
    st.sampled_from([{"status": "pulling manifest"}, {"status": "success"}, {"error": "no"}, {"status": ""}, {}]),
    st.builds(
        lambda digest, done: {"status": "pulling", "digest": digest, "total": 10, "completed": done},
        st.sampled_from(["x", "y"]),
        st.integers(-1, 12),
    ),
)


@given(st.lists(st.tuples(st.sampled_from(SERVERS), RECORDS), max_size=40))
def test_whatever_the_servers_say(said: list[tuple[ServerId, dict[str, object] | None]]) -> None:
    merged = MergedPull(SERVERS)
    lines = [line for server, record in said for line in merged.take(server, record)]
    assert all(line.get("status") and line["status"] != "success" and "error" not in line for line in lines)
    for digest in ("x", "y"):
        come = [int(str(line.get("completed", 0))) for line in lines if line.get("digest") == digest]
        assert come == sorted(set(come))
    assert (merged.last() == {"status": "success"}) is merged.succeeded


def test_a_layer_has_come_as_far_as_on_the_slowest_server() -> None:
    merged = MergedPull(SERVERS[:2])
    fast, slow = SERVERS[:2]
    layer = {"status": "pulling x", "digest": "x", "total": 10}

    def shown(server: ServerId, completed: int) -> list[object]:
        return [line.get("completed", 0) for line in merged.take(server, {**layer, "completed": completed})]

    assert [shown(fast, 9), shown(slow, 2), shown(slow, 4), shown(fast, 10)] == [[0], [2], [4], []]
    assert [line["completed"] for line in merged.take(slow, {"error": "gone"}) if "digest" in line] == [10]
