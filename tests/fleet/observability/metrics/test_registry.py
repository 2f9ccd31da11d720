"""What a meter counts, row by row; and that it counts, whatever happens, upwards and in few series."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.breakers.outcomes import ClientLeft, Completed, End, Failed, Incomplete, Refused, Revoked, StreamError, kind
from fleet.common.errors import BackendBroke, IdleTimeout, Phase
from fleet.observability.metrics.definitions import BY_NAME, OTHER, PREDICTION_BUCKETS
from fleet.observability.metrics.label_values import outcome_word, status_word
from fleet.observability.metrics.registry import BETWEEN_SWEEPS, LIMITED, MOST_LISTENERS, MetricsRegistry
from fleet.observability.metrics.snapshot import Exposed, count
from tests.fleet.observability.metrics.metered import Done, Inventory, Tried, metered, refused, shown

M = "m:latest"
LEFT = replace(Done(), outcome="client_left", output_tokens=None, chunks=7)
BEGAN = Tried(outcome="idle_timeout")
HUNG = Tried(server="b", outcome="first_byte_timeout", first_byte=None)
MOVED = replace(Done(), tries=(HUNG, Tried()))
ROWS: list[tuple[str, Done, tuple[str, ...], float | None]] = [
    ("a request", Done(), ("ollama_proxy_requests_total", "POST", "/api/chat", M, "200"), 1),
    ("its time", Done(), ("ollama_proxy_request_duration_seconds_sum", "POST", "/api/chat", M), 2.0),
    ("its outcome", Done(), ("fleet_requests_total", "a", M, "completed"), 1),
    ("its prompt", Done(), ("fleet_prompt_tokens_total", "a", M), 5),
    ("its answer", Done(), ("fleet_output_tokens_total", "a", M), 10),
    ("its attempt", Done(), ("fleet_attempts_total", "a", "completed"), 1),
    ("its stream", Done(), ("fleet_streams_total", "a"), 1),
    ("first token", Done(), ("fleet_time_to_first_token_seconds_sum", M), 0.2),
    ("first token of the server", Done(), ("fleet_server_first_token_seconds_sum", "a"), 0.2),
    ("between tokens", Done(), ("fleet_inter_token_seconds_sum", M), 0.2),
    ("no wait is a wait", Done(), ("fleet_queue_wait_seconds_count", M), 1),
    ("a wait", replace(Done(), queue_seconds=1.5), ("fleet_queue_wait_seconds_sum", M), 1.5),
    ("one piece is no stream", replace(Done(), stream=False), ("fleet_streams_total", "a"), 0),
    ("nor has it a first token", replace(Done(), stream=False), ("fleet_time_to_first_token_seconds_count", M), 0),
    ("one token has no gap", replace(Done(), output_tokens=1), ("fleet_inter_token_seconds_count", M), 0),
    ("a warm runner", replace(Done(), load_seconds=0.01), ("fleet_model_load_seconds_count", M), 0),
    ("a load", replace(Done(), load_seconds=3.0), ("fleet_model_load_seconds_sum", M), 3.0),
    ("a client left", LEFT, ("ollama_proxy_requests_total", "POST", "/api/chat", M, "499"), 1),
    ("for nothing", LEFT, ("fleet_wasted_tokens_total", M), 7),
    ("for nothing, counted", replace(LEFT, output_tokens=4), ("fleet_wasted_tokens_total", M), 4),
    ("stalled client", replace(LEFT, outcome="client_stalled"), ("fleet_wasted_tokens_total", M), 7),
    ("nothing wasted", Done(), ("fleet_wasted_tokens_total", M), 0),
    ("no answer at all", replace(Done(), status=0), ("ollama_proxy_requests_total", "POST", "/api/chat", M, "500"), 1),
    ("failover", MOVED, ("fleet_failovers_total", "first_byte_timeout"), 1),
    ("its first attempt", MOVED, ("fleet_attempts_total", "b", "first_byte_timeout"), 1),
    ("its last attempt", MOVED, ("fleet_attempts_total", "a", "completed"), 1),
    ("no stream where it hung", MOVED, ("fleet_streams_total", "b"), 0),
    ("a stall", replace(Done(), tries=(BEGAN,)), ("fleet_stream_stalls_total", "a"), 1),
    ("no stall", Done(), ("fleet_stream_stalls_total", "a"), 0),
    ("no slot", refused("queue_full", 503), ("fleet_queue_rejected_total", "full"), 1),
    ("no slot in time", refused("queue_timeout", 504), ("fleet_queue_rejected_total", "timeout"), 1),
    ("unserved", refused("no_server", 503), ("fleet_unserved_total", M, "no_server"), 1),
    ("no server's outcome", refused("no_server", 503), ("fleet_requests_total", "", M, "no_server"), 1),
    ("refused at once waits not", refused("no_server", 503), ("fleet_queue_wait_seconds_count", M), 0),
    ("waited in vain", refused("queue_timeout", 504, queue_seconds=9.0), ("fleet_queue_wait_seconds_sum", M), 9.0),
    ("left the line", refused("client_left", 0), ("fleet_unserved_total", M, "client_left"), None),
    ("no name", replace(Done(), model=""), ("fleet_requests_total", "a", "", "completed"), 1),
]


@pytest.mark.parametrize(("what", "done", "series", "value"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_finished_request_counts_for(
    what: str, done: Done, series: tuple[str, ...], value: float | None
) -> None:
    found = shown(metered(done)).get(series, None if value is None else 0)
    assert found == (value if value is None else pytest.approx(value))


def test_two_batches_add_up_as_one_does() -> None:
    done = [row[1] for row in ROWS]
    apart = MetricsRegistry()
    for each in done:
        metered(each, meter=apart)
    together, one_by_one = shown(metered(*done)), shown(apart)
    assert one_by_one == pytest.approx(together)
    assert sum(value for key, value in together.items() if key[0] == "ollama_proxy_requests_total") == len(ROWS)
    assert sum(value for key, value in together.items() if key[0] == "fleet_requests_total") == len(ROWS)


def test_a_call_without_a_model_counts_by_method_route_and_status() -> None:
    meter = MetricsRegistry()
    meter.called("GET", "/api/tags", 200, 0.01)
    found = shown(meter)
    assert found["ollama_proxy_requests_total", "GET", "/api/tags", "", "200"] == 1
    assert found["ollama_proxy_request_duration_seconds_sum", "GET", "/api/tags", ""] == 0.01


def test_rate_limits_count_by_listener_of_which_there_are_few() -> None:
    meter = MetricsRegistry()
    for number in range(MOST_LISTENERS + 5):
        meter.limited(f"l{number}")
    found = {key[1]: value for key, value in shown(meter).items() if key[0] == "fleet_rate_limited_total"}
    assert len(found) == MOST_LISTENERS + 1
    assert found[OTHER] == 5 + len(LIMITED)


def test_a_breaker_s_moves_count_by_where_to() -> None:
    meter = MetricsRegistry()
    for to in ("open", "half_open", "open"):
        meter.moved("a", M, to, 1.0)
    found = shown(meter)
    assert found["fleet_breaker_transitions_total", "a", M, "open"] == 2
    assert found["fleet_breaker_transitions_total", "a", M, "half_open"] == 1


def test_what_rules_watch_is_there_before_it_happens() -> None:
    """To Prometheus a counter that is 1 when it is first seen has not increased."""
    found = shown(MetricsRegistry())
    for series in (("fleet_queue_rejected_total", "full"), *(("fleet_rate_limited_total", name) for name in LIMITED)):
        assert found[series] == 0
    assert found["fleet_failovers_total", "connect_timeout"] == 0
    before = shown(metered(Done()))
    for name in ("loads", "reloads", "evictions"):
        assert before[f"fleet_model_{name}_total", "a", M] == 0
    assert before["fleet_breaker_transitions_total", "a", M, "open"] == 0
    meter = metered(Done())
    meter.moved("a", M, "open", 101.0)
    after = {key[3]: value for key, value in shown(meter).items() if key[0] == "fleet_breaker_transitions_total"}
    assert after == {"open": 1, "half_open": 0, "closed": 0}


def test_a_request_without_a_server_makes_no_series_of_breakers_and_loads() -> None:
    found = shown(metered(refused("no_server", 503)))
    assert not [key for key in found if key[0].startswith(("fleet_breaker_transitions", "fleet_model_loads"))]


def test_requests_that_wait_to_be_counted_keep_their_time_and_their_name() -> None:
    meter, inventory = MetricsRegistry(), Inventory({"a": {M}})
    meter.known = inventory
    metered(Done(), meter=meter, now=100.0)
    shown(meter)
    metered(Done(output_tokens=590), meter=meter, now=130.0)
    inventory.servers = {}
    assert shown(meter)["fleet_requests_total", "a", M, "completed"] == 2
    pace = dict(meter.models.items())[M].pace
    assert pace.per_second(159.0) == pytest.approx(600 / 59.0)
    assert pace.per_second(196.0) == 0.0, "they ended more than a minute ago, whenever somebody looked"


def test_few_requests_wait_to_be_counted() -> None:
    meter = metered(Done())
    for _ in range(1000):
        metered(Done(), meter=meter)
        assert len(meter._waiting) < 256


@pytest.mark.parametrize(
    ("status", "outcome", "word"),
    [
        (200, "completed", "200"),
        (499, "", "499"),
        (529, "", "5xx"),
        (799, "", "7xx"),
        (0, "", "500"),
        (-3, "", "500"),
        (200, "client_left", "499"),
        (12345, "", "500"),
    ],
)
def test_a_status_is_one_of_a_few_words(status: int, outcome: str, word: str) -> None:
    assert status_word(status, outcome) == word


@pytest.mark.parametrize(
    "end",
    [
        Completed(200),
        Incomplete(200),
        Refused(503),
        Failed(BackendBroke("x", Phase.BODY)),
        Failed(IdleTimeout("x", Phase.BODY)),
        StreamError("x"),
        ClientLeft(),
        ClientLeft(stalled=True),
        Revoked("x"),
    ],
    ids=kind,
)
def test_our_own_outcomes_are_labels_as_they_are(end: End) -> None:
    assert outcome_word(kind(end)) == kind(end)


@pytest.mark.parametrize(("status", "word"), [(788, "refused_7xx"), (599, "refused_5xx"), (404, "refused_404")])
def test_a_backend_cannot_make_labels_of_its_statuses(status: int, word: str) -> None:
    assert outcome_word(kind(Refused(status))) == word


# ---- names


def test_names_that_nobody_serves_are_one_series() -> None:
    meter = MetricsRegistry()
    meter.known = Inventory({"a": {M}})
    metered(*[refused("model_not_found", 404, model=f"x{n}:latest") for n in range(50)], Done(), meter=meter)
    found = shown(meter)
    assert found["fleet_unserved_total", OTHER, "model_not_found"] == 50
    assert found["fleet_requests_total", "a", M, "completed"] == 1
    assert {key[1] for key in found if key[0] == "fleet_wasted_tokens_total"} == {OTHER, M}


def test_a_pinned_name_that_the_server_does_not_list_is_other() -> None:
    meter = MetricsRegistry()
    meter.known = Inventory({"a": {M}})
    found = shown(metered(replace(Done(), model="x:latest", outcome="refused_404", status=404), meter=meter))
    assert found["fleet_requests_total", "a", OTHER, "refused_404"] == 1


def test_over_the_caps_further_names_share_a_series_and_the_first_keep_theirs() -> None:
    meter = MetricsRegistry()
    meter.bound(models=2, pairs=3)
    names = ["m1", "m2", "m3"]
    done = [replace(Done(), server=s, model=m, tries=(Tried(server=s),)) for s in "abc" for m in names]
    metered(*done, *done, meter=meter)
    requests = {key[1:]: value for key, value in shown(meter).items() if key[0] == "fleet_requests_total"}
    first = {("a", "m1"): 2, ("a", "m2"): 2, ("b", "m1"): 2}
    rest = {("a", OTHER): 2, ("b", OTHER): 4, ("c", OTHER): 6}
    assert {key[:2]: value for key, value in requests.items()} == first | rest


def test_what_is_gone_makes_room_but_only_when_there_is_none() -> None:
    meter, inventory = MetricsRegistry(), Inventory({"a": {"m1", "m2"}})
    meter.known = inventory
    meter.bound(models=2, pairs=2)
    metered(replace(Done(), model="m1"), replace(Done(), model="m2"), meter=meter)
    inventory.servers = {"a": {"m2", "m3"}}
    metered(replace(Done(), model="m2"), meter=meter, now=101.0)
    assert ("fleet_requests_total", "a", "m1", "completed") in shown(meter)
    metered(replace(Done(), model="m3"), meter=meter, now=102.0)
    found = shown(meter)
    assert ("fleet_requests_total", "a", "m1", "completed") not in found
    assert found["fleet_requests_total", "a", "m2", "completed"] == 2
    assert found["fleet_requests_total", "a", "m3", "completed"] == 1
    inventory.servers = {"a": {"m3", "m4"}}
    metered(replace(Done(), model="m4"), meter=meter, now=103.0)
    assert ("fleet_requests_total", "a", "m4", "completed") not in shown(meter), "looked at once a minute at most"
    metered(replace(Done(), model="m4"), meter=meter, now=103.0 + BETWEEN_SWEEPS)
    assert ("fleet_requests_total", "a", "m4", "completed") in shown(meter)


NAMES = st.sampled_from([f"m{n}" for n in range(12)] + ["", OTHER])
SERVERS = st.sampled_from([f"s{n}" for n in range(8)] + [OTHER])
WORDS = st.sampled_from(["completed", "client_left", "queue_full", "no_server", "refused_500", "idle_timeout"])
TRIES = st.builds(
    lambda server, outcome, first: Tried(server, outcome, first_byte=first),
    SERVERS,
    WORDS,
    st.sampled_from([None, 10.5]),
)
DONE = st.builds(
    Done,
    endpoint=st.sampled_from(["/api/chat", "/api/generate", "/v1/messages"]),
    model=NAMES,
    server=st.one_of(st.just(""), SERVERS),
    outcome=WORDS,
    status=st.integers(-1, 1100),
    queue_seconds=st.floats(0, 1e6),
    total_seconds=st.floats(0, 1e6),
    output_tokens=st.one_of(st.none(), st.integers(0, 10**9)),
    stream=st.booleans(),
    load_seconds=st.one_of(st.none(), st.floats(0, 1e4)),
    tries=st.lists(TRIES, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(DONE, max_size=8), max_size=8), models=st.integers(1, 5), pairs=st.integers(1, 6))
def test_counters_never_run_back_and_labels_stay_few(batches: list[list[Done]], models: int, pairs: int) -> None:
    meter = MetricsRegistry()
    meter.bound(models, pairs)
    before: dict[tuple[str, ...], float] = {}
    for number, batch in enumerate(batches):
        metered(*batch, meter=meter, now=1000.0 * number)
        after = shown(meter)
        assert all(after.get(key, -1.0) >= value for key, value in before.items())
        before = after
    made = Counter(key[0] for key in before)
    requests = {key[1:3] for key in before if key[0] == "fleet_requests_total"}
    assert len({model for _, model in requests}) <= models + 2
    assert len([pair for pair in requests if not {"", OTHER} & set(pair)]) <= pairs
    assert made["ollama_proxy_request_duration_seconds_count"] <= pairs + 2 * 3
    assert sum(value for key, value in before.items() if key[0] == "fleet_requests_total") == sum(map(len, batches))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_a_histogram_counts_each_value_in_every_bucket_that_holds_it(values: list[float]) -> None:
    exposed = Exposed()
    count(exposed, metered(*[replace(Done(), total_seconds=value) for value in values]))
    family = next(each for each in exposed.in_order() if each.metric.name == "ollama_proxy_request_duration_seconds")
    ((_, (counts, total, examples)),) = family.spreads
    bounds = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, float("inf")]
    assert list(counts) == [sum(value <= bound for value in values) for bound in bounds]
    assert total == pytest.approx(sum(values))
    for low, bound, example in zip([-1.0, *bounds], bounds, examples, strict=False):
        held = [value for value in values if low < value <= bound]
        assert (example.value if example else None) == (held[-1] if held else None)


def test_predictions_are_counted_by_term() -> None:
    meter = MetricsRegistry()
    meter.predicted("load", 1.05)
    meter.predicted("load", 3.0)
    meter.predicted("wait", 0.01)
    exposed = Exposed()
    count(exposed, meter)
    family = next(each for each in exposed.in_order() if each.metric.name == "fleet_prediction_error_ratio")
    counts = {labels: buckets[0] for labels, buckets in family.spreads}
    assert counts[("load",)][PREDICTION_BUCKETS.index(1.0)] == 0
    assert counts[("load",)][PREDICTION_BUCKETS.index(1.1)] == 1
    assert counts[("load",)][-1] == 2
    assert counts[("wait",)][0] == 1


def test_every_name_that_is_exposed_is_in_the_table() -> None:
    with pytest.raises(KeyError):
        Exposed().value("fleet_invented_total", 1)
    assert {family.metric.name for family in Exposed().in_order()} == set(BY_NAME)
