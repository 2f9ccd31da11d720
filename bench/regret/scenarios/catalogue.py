"""Which scenarios there are, and their variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.regret.scenarios import faults, loads, slots, talks
from bench.regret.world import Setup


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. `by_slots`: its variants differ only in what the operator says of slots, which only ours reads."""

    number: int
    name: str
    variants: tuple[str, ...]
    build: Callable[[str], Setup]

    def plain(self, variant: str) -> bool:
        """Whether routers that read no `max_concurrency` need to run it: not again for each number of slots."""
        return "K=" not in variant or variant.endswith("K=4")


SCENARIOS: Final = {
    each.number: each
    for each in (
        Scenario(1, "unequal servers, varied sizes", ("load .5", "load .7", "load .9"), slots.unequal),
        Scenario(
            2, "three models, two places, bursts", ("150 in 10 min", "300 in 10 min", "600 in 10 min"), loads.bursts
        ),
        Scenario(3, "num_ctx ping-pong", ("load .7",), loads.ping_pong),
        Scenario(4, "cold herd", ("100 in 1 s",), loads.cold_herd),
        Scenario(5, "long chats", ("200 x 10 turns",), talks.long_chats),
        Scenario(6, "hot prefix", ("90 % share 8k",), talks.hot_prefix),
        Scenario(7, "hidden slots, a restart, a guest", ("K 1,1,4,8",), slots.hidden),
        Scenario(8, "one bulk client, nine chats", ("500 x 4k",), talks.bulk),
        Scenario(9, "grey failures", ("one after the other",), faults.grey),
        Scenario(10, "forty models, changing favourites", ("Zipf .9",), loads.many_models),
        Scenario(11, "warm or wait", talks.WARM_OR_WAIT, talks.warm_or_wait),
        Scenario(12, "poison and busy", ("two of each",), faults.poison_and_busy),
    )
}
