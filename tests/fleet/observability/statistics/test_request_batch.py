"""A batch of finished requests is grouped once, and every request is in exactly one group."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fleet.observability.statistics.request_batch import RequestBatch, first_tokens


@dataclass(frozen=True)
class Done:
    """A finished request."""

    endpoint: str = "/api/chat"
    server: str = "a"
    model: str = "m:latest"
    outcome: str = "completed"
    first_byte_seconds: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    stream: bool = False


REQUESTS = st.builds(
    Done,
    endpoint=st.sampled_from(["/api/chat", "/api/generate"]),
    server=st.sampled_from(["a", "b", ""]),
    model=st.sampled_from(["m:latest", "n:latest", ""]),
    outcome=st.sampled_from(["completed", "client_left", "refused_500", "queue_full", "model_not_found"]),
    first_byte_seconds=st.none() | st.floats(0.0, 9.0),
    prompt_tokens=st.none() | st.integers(0, 9),
    output_tokens=st.none() | st.integers(0, 9),
    stream=st.booleans(),
)


@given(st.lists(REQUESTS, max_size=30))
def test_groups_hold_each_request_once_in_its_order_and_say_what_it_adds_up_to(done: list[Done]) -> None:
    batch = RequestBatch(done)
    assert list(batch) == done
    assert batch.outcomes == Counter(each.outcome for each in done)
    assert len({(group.server, group.model) for group in batch.groups}) == len(batch.groups)
    assert sum(len(group.requests) for group in batch.groups) == len(done)
    for group in batch.groups:
        mine = [each for each in done if (each.server, each.model) == (group.server, group.model)]
        assert group.requests == mine
        assert group.outcomes == Counter(each.outcome for each in mine)
        assert group.errors == sum(each.outcome not in ("completed", "client_left") for each in mine)
        assert group.prompt == sum(each.prompt_tokens or 0 for each in mine)
        assert group.output == sum(each.output_tokens or 0 for each in mine)
        assert group.began == [each for each in mine if each.stream and each.first_byte_seconds is not None]
        assert first_tokens([group]) == [each.first_byte_seconds for each in group.began]
        by_endpoint = {name: [each for each in mine if each.endpoint == name] for name in {e.endpoint for e in mine}}
        assert group.endpoints == by_endpoint
