"""Who uses the fleet, as Prometheus sees it: names of keys, bounded."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fleet.observability.metrics.key_usage import KeyMeter
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.observability.metrics.snapshot import Exposed, count
from fleet.security.api_keys import StoredKey, digest_of, read_keys, written
from fleet.security.roles import Role


@dataclass
class Done:
    by: str = ""
    outcome: str = "completed"
    prompt_tokens: int | None = 3
    output_tokens: int | None = 5


def shown(keys: KeyMeter) -> dict[tuple[str, ...], float]:
    """Family and labels of every series of keys."""
    meter, exposed = MetricsRegistry(), Exposed()
    meter.keys = keys
    count(exposed, meter)
    families = [each for each in exposed.in_order() if each.metric.name.startswith("fleet_key_")]
    points = [((each.metric.name, *labels), value) for each in families for labels, value in each.points]
    assert len(points) == len(dict(points)), "no series twice"
    return dict(points)


def test_requests_and_tokens_are_counted_by_the_name_of_the_key() -> None:
    keys = KeyMeter()
    keys.note([Done("ada"), Done("ada", "queue_full", None, None), Done("bob", output_tokens=7), Done()])
    assert shown(keys) == {
        ("fleet_key_requests_total", "ada", "completed"): 1,
        ("fleet_key_requests_total", "ada", "queue_full"): 1,
        ("fleet_key_requests_total", "bob", "completed"): 1,
        ("fleet_key_requests_total", "anonymous", "completed"): 1,
        ("fleet_key_prompt_tokens_total", "ada"): 3,
        ("fleet_key_prompt_tokens_total", "bob"): 3,
        ("fleet_key_prompt_tokens_total", "anonymous"): 3,
        ("fleet_key_output_tokens_total", "ada"): 5,
        ("fleet_key_output_tokens_total", "bob"): 7,
        ("fleet_key_output_tokens_total", "anonymous"): 5,
    }


def test_a_thousand_keys_have_as_many_series_as_there_is_room_for_and_nothing_is_lost() -> None:
    keys = KeyMeter(3)
    for number in range(1000):
        keys.note([Done(f"key-{number}"), Done("key-0"), Done("other")])
    found = {key[1]: value for key, value in shown(keys).items() if key[0] == "fleet_key_requests_total"}
    assert found == {"key-0": 1001, "key-1": 1, "key-2": 1, "other": 1997}


def test_a_key_of_the_file_that_is_called_like_a_key_is_refused_for_its_name_would_tell_it() -> None:
    stored = StoredKey("long-and-secret", Role.CLIENT, digest_of("long-and-secret"))
    with pytest.raises(ValueError, match="a name is a key itself") as caught:
        read_keys(written([stored]))
    assert "long-and-secret" not in str(caught.value)
