"""Loads, reloads and evictions: each is counted once, whoever saw it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as having

import pytest

from fleet.observability.metrics.model_loads import LoadWatch
from fleet.observability.metrics.series import OfPair
from tests.fleet.observability.metrics.metered import Done, Tried

WIDE: Mapping[str, object] = {"num_ctx": 8192}


@dataclass
class Watched:
    """One server with one model of interest, and what was counted."""

    pairs: dict[tuple[str, str], OfPair] = having(default_factory=lambda: defaultdict(OfPair))

    def __post_init__(self) -> None:
        self.watch = LoadWatch(lambda server, model, now: self.pairs[server, model])

    def probe(self, now: float, *resident: str) -> None:
        self.watch.looked("a", resident, now)

    def request(
        self, began: float, ended: float, load: float = 0.0, runner: Mapping[str, object] | None = None
    ) -> None:
        tried = Tried(started=began, first_byte=began + load, ended=ended)
        self.watch.ended([Done(model="m", load_seconds=load, runner=runner, tries=(tried,))], ended)

    @property
    def counted(self) -> tuple[int, int, int]:
        pair = self.pairs["a", "m"]
        return pair.loads, pair.reloads, pair.evictions


def first_inventory(seen: Watched) -> None:
    seen.probe(0.0, "m", "n")


def comes(seen: Watched) -> None:
    seen.probe(0.0, "n")
    seen.probe(10.0, "n", "m")


def goes(seen: Watched) -> None:
    seen.probe(0.0, "m")
    seen.probe(10.0)


def comes_and_goes(seen: Watched) -> None:
    for now in range(6):
        seen.probe(10.0 * now, *(["m"] if now % 2 else []))


def seen_by_the_request_first(seen: Watched) -> None:
    seen.probe(0.0)
    seen.request(1.0, 5.0, load=2.0)
    seen.probe(10.0, "m")


def seen_by_the_probe_while_the_request_runs(seen: Watched) -> None:
    seen.probe(0.0)
    seen.probe(10.0, "m")
    seen.request(7.0, 60.0, load=2.0)


def many_wait_for_one_load(seen: Watched) -> None:
    seen.probe(0.0)
    for number in range(5):
        seen.request(1.0 + number / 10, 6.0 + number, load=3.0 - number / 10)
    seen.probe(10.0, "m")


def between_two_probes(seen: Watched) -> None:
    """It was in memory at both, and yet a request had to wait for it: it had gone meanwhile, unseen."""
    seen.probe(0.0, "m")
    seen.request(15.0, 20.0, load=3.0)
    seen.probe(20.5, "m")


def twice_between_two_probes(seen: Watched) -> None:
    seen.probe(0.0)
    seen.request(1.0, 3.0, load=1.0)
    seen.request(4.0, 6.0, load=1.0)
    seen.probe(10.0, "m")


def other_options(seen: Watched) -> None:
    seen.probe(0.0, "m")
    seen.request(1.0, 2.0, load=0.001)
    seen.request(11.0, 15.0, load=3.0, runner=WIDE)
    seen.request(16.0, 17.0, load=0.001, runner=WIDE)
    seen.request(21.0, 25.0, load=3.0)


def the_same_options(seen: Watched) -> None:
    seen.probe(0.0, "m")
    seen.request(1.0, 2.0, load=0.001, runner=WIDE)
    seen.request(11.0, 15.0, load=3.0, runner=dict(WIDE))


def away_meanwhile(seen: Watched) -> None:
    seen.probe(0.0, "n")
    seen.watch.lost("a")
    seen.probe(10.0, "m")


def never_probed(seen: Watched) -> None:
    seen.request(1.0, 5.0, load=2.0)


def warm(seen: Watched) -> None:
    seen.probe(0.0, "m")
    seen.request(1.0, 5.0, load=0.05)


@pytest.mark.parametrize(
    ("story", "counted"),
    [
        (first_inventory, (0, 0, 0)),
        (comes, (1, 0, 0)),
        (goes, (0, 0, 1)),
        (comes_and_goes, (3, 0, 2)),
        (seen_by_the_request_first, (1, 0, 0)),
        (seen_by_the_probe_while_the_request_runs, (1, 0, 0)),
        (many_wait_for_one_load, (1, 0, 0)),
        (between_two_probes, (1, 0, 0)),
        (twice_between_two_probes, (2, 0, 0)),
        (other_options, (2, 2, 0)),
        (the_same_options, (1, 0, 0)),
        (away_meanwhile, (0, 0, 0)),
        (never_probed, (0, 0, 0)),
        (warm, (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_loads_reloads_and_evictions(story: Callable[[Watched], None], counted: tuple[int, int, int]) -> None:
    seen = Watched()
    story(seen)
    assert seen.counted == counted
