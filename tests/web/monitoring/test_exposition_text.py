"""How figures are written down: in both formats, as prometheus-client's own parsers read them."""

from __future__ import annotations

import gzip
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.samples import Sample

from fleet.observability.metrics.definitions import BUCKETS, BY_NAME, METRICS
from fleet.observability.metrics.instruments import Example
from fleet.observability.metrics.snapshot import Family
from web.monitoring.exposition import content_type_of, wants_gzip
from web.monitoring.exposition_text import OPENMETRICS, TEXT, Writer, compressed, written

SEED_HISTOGRAM = "ollama_proxy_request_duration_seconds"


def one_of_each(label: str = "x", request_id: str = "r-1") -> list[Family]:
    """Every metric of the table, with one series."""
    found = []
    for metric in METRICS:
        labels = tuple(label for _ in metric.labels)
        if metric.kind == "histogram":
            places = len(BUCKETS[metric.name]) + 1
            examples = (Example(request_id, 0.01, 1e9), *[None] * (places - 1))
            found.append(Family(metric, spreads=((labels, (tuple([3] * places), 4.5, examples)),)))
        else:
            found.append(Family(metric, points=((labels, 1),)))
    return found


def read(families: list[Family], content_type: str = TEXT) -> dict[str, tuple[str, list[Sample]]]:
    """Type and samples by the name in the table."""
    text = written(families, content_type).decode()
    openmetrics = content_type == OPENMETRICS
    parsed = read_openmetrics(text) if openmetrics else read_text(text)  # type: ignore[no-untyped-call]
    shown = {"counter": "_total", "info": "_info"}
    return {
        each.name + shown.get(each.type, ""): (each.type, each.samples)
        for each in parsed
        if not each.name.startswith("process_")
    }


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_names_types_and_labels_are_those_of_the_table_both_ways(content_type: str) -> None:
    found = read(one_of_each(), content_type)
    assert found.keys() == BY_NAME.keys()
    for name, (kind, samples) in found.items():
        metric = BY_NAME[name]
        assert kind == metric.kind or (metric.kind, kind, content_type) == ("info", "gauge", TEXT)
        assert samples
        for sample in samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels)


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_a_metric_without_values_is_named_all_the_same(content_type: str) -> None:
    found = read([Family(metric) for metric in METRICS], content_type)
    assert found.keys() == BY_NAME.keys()
    assert not any(samples for _, samples in found.values())


def test_a_histogram_has_its_bounds_count_and_sum() -> None:
    _, samples = read(one_of_each())[SEED_HISTOGRAM]
    bounds = [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")]
    assert bounds == [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, math.inf]
    assert {sample.name: sample.value for sample in samples if "le" not in sample.labels} == {
        f"{SEED_HISTOGRAM}_count": 3,
        f"{SEED_HISTOGRAM}_sum": 4.5,
    }
    text = written(one_of_each(), TEXT).decode()
    assert 'le="0.1"' in text
    assert 'le="1.0"' in text, "as the reference writes it"


@pytest.mark.parametrize("name", BUCKETS)
def test_bounds_grow(name: str) -> None:
    assert BY_NAME[name].kind == "histogram"
    assert list(BUCKETS[name]) == sorted(set(BUCKETS[name]))


def test_only_openmetrics_has_exemplars_and_they_name_a_request() -> None:
    _, samples = read(one_of_each(), OPENMETRICS)[SEED_HISTOGRAM]
    (exemplar,) = [sample.exemplar for sample in samples if sample.exemplar is not None]
    assert (exemplar.labels, exemplar.value) == ({"request_id": "r-1"}, 0.01)
    assert float(exemplar.timestamp or 0.0) == 1e9
    assert b"r-1" not in written(one_of_each(), TEXT)


def test_a_request_id_that_openmetrics_finds_too_long_is_left_out() -> None:
    longest = "x" * (128 - len("request_id"))
    assert longest.encode() in written(one_of_each(request_id=longest), OPENMETRICS)
    assert b"xx" not in written(one_of_each(request_id=longest + "x"), OPENMETRICS)


@given(label=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20))
def test_whatever_a_label_holds_it_comes_out_as_it_was(label: str) -> None:
    name = "fleet_attempts_total"
    family = Family(BY_NAME[name], points=(((label, "completed"), 1),))
    for content_type in (TEXT, OPENMETRICS):
        ((_, (sample,)),) = read([family], content_type).values()
        assert sample.labels == {"server": label, "outcome": "completed"}


NUMBERS = st.one_of(st.integers(0, 3), st.floats(min_value=0.0), st.booleans())
SERVERS = st.sampled_from(["a", "b", 'c"\\\n}{ 1', "d\r\x85", ""])
EXAMPLES = st.one_of(
    st.none(), st.builds(Example, st.sampled_from(["r", "s", 'q" 0.0', "x" * 200]), NUMBERS, st.floats(0, 2e9))
)
SPREAD = BY_NAME["fleet_server_first_token_seconds"]
PLACES = len(BUCKETS[SPREAD.name]) + 1
SPREADS = st.dictionaries(
    SERVERS,
    st.tuples(
        st.lists(st.integers(0, 10**9), min_size=PLACES, max_size=PLACES).map(tuple),
        NUMBERS,
        st.lists(EXAMPLES, min_size=PLACES, max_size=PLACES).map(tuple),
    ),
)


@settings(max_examples=30, deadline=None)
@given(
    moments=st.lists(st.tuples(st.dictionaries(SERVERS, NUMBERS), SPREADS, NUMBERS), min_size=2, max_size=4),
    kind=st.sampled_from([TEXT, OPENMETRICS]),
)
def test_what_is_written_does_not_depend_on_what_was_written_before(moments: list[Any], kind: str) -> None:
    writer = Writer(kind)
    for ups, spreads, waiting in moments:
        families = [
            Family(BY_NAME["fleet_server_up"], points=tuple(((server,), value) for server, value in ups.items())),
            Family(SPREAD, spreads=tuple(((server,), value) for server, value in spreads.items())),
            Family(BY_NAME["fleet_queue_waiting"], points=(((), waiting),)),
        ]
        again, anew = (
            text.partition(b"# HELP process_")[0] for text in (writer.written(families), written(families, kind))
        )
        assert again == anew
        assert again.count(b"fleet_server_up{") == len(ups)
        assert again.count(b"_bucket{") == len(spreads) * PLACES


@pytest.mark.parametrize("kind", [TEXT, OPENMETRICS])
def test_a_series_that_is_gone_is_forgotten(kind: str) -> None:
    writer, metric = Writer(kind), BY_NAME["fleet_server_up"]
    for number in range(50):
        text = writer.written([Family(metric, points=(((f"s{number}",), 1),))])
        assert text.count(b"fleet_server_up{") == 1
    assert len(writer._series) == 1


def test_a_writer_that_failed_once_is_as_good_as_new() -> None:
    writer, metric = Writer(TEXT), BY_NAME["fleet_server_up"]
    good = Family(metric, points=((("a",), 1),))
    writer.written([good])
    with pytest.raises(UnicodeEncodeError):
        writer.written([good, Family(metric, points=((("\ud800",), 1),))])
    assert b'fleet_server_up{server="a"} 1.0' in writer.written([good])


def test_figures_of_the_process_are_there_too() -> None:
    text = written([], TEXT).decode()
    found = {family.name for family in read_text(text)}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds"} <= found


def test_compressed_it_is_the_same() -> None:
    families = one_of_each()
    plain = list(read_text(gzip.decompress(compressed(written(families, TEXT))).decode()))
    assert [family.name for family in plain[: len(families)]] == [
        family.name for family in read_text(written(families, TEXT).decode())
    ][: len(families)]


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4", True),
        ("text/plain;version=1.0.0;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=0.0.1;q=0.75", False),
        ("application/openmetrics-text;version=abc", False),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0", True),
        ("application/openmetrics-text;q=nonsense", False),
        ("application/openmetrics-text;q=nan", False),
        (",;,=;q", False),
        ("application/openmetrics-text;q=0.5,text/*;q=0.9", False),
        ("application/openmetrics-text;q=0.1,*/*", False),
        ("application/openmetrics-text;q=0.5,text/*;q=0.9,text/plain;q=0.4", True),
        ('application/openmetrics-text; version = "1.0.0"; q=0.8, */*;q=0.1', True),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
    ],
)
def test_openmetrics_is_for_those_who_ask_for_it(accept: str, openmetrics: bool) -> None:
    assert content_type_of(accept) == (OPENMETRICS if openmetrics else TEXT)


@pytest.mark.parametrize(
    ("accept", "zipped"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP;q=0.1", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
        ("x-gzip", True),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip", True),
    ],
)
def test_it_is_compressed_for_those_who_take_that(accept: str, zipped: bool) -> None:
    assert wants_gzip(accept) == zipped
