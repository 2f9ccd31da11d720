"""Who comes when, and wants what: generators of talks. Seeded, so the same every time. Seconds and tokens."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Sequence
from itertools import count

from bench.regret.demand import Demand, Talk, Turn
from fleet.simulator.text import CHARS_PER_TOKEN


class Traffic:
    """One source of dice and of request numbers for a whole scenario."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)
        self._numbers = count()

    # ---- times

    def poisson(self, rate: float, until: float, since: float = 0.0) -> Iterator[float]:
        """Arrivals at so many a second."""
        now = since
        while (now := now + self.dice.expovariate(rate)) < until:
            yield now

    def bursts(self, per_second: float, until: float) -> Iterator[float]:
        """Bursts of about 15 with gaps of median 0.2 s and mean 1 s, between pauses that make up the rate."""
        now, sigma = 0.0, math.sqrt(2.0 * math.log(1.0 / 0.2))
        while now < until:
            size = 1 + min(60, int(self.dice.expovariate(1.0 / 14.0)))
            for _ in range(size):
                now += min(30.0, self.dice.lognormvariate(math.log(0.2), sigma))
                if now < until:
                    yield now
            now += self.dice.expovariate(1.0 / max(0.1, size / per_second - size))

    # ---- sizes

    def varied(self, mean: float, scv: float) -> float:
        """A duration or a length whose squared coefficient of variation is given: hyperexponential above 1."""
        if scv <= 1.0:
            return self.dice.expovariate(1.0 / mean)
        share = 0.5 * (1.0 + math.sqrt((scv - 1.0) / (scv + 1.0)))  # balanced means
        if self.dice.random() < share:
            return self.dice.expovariate(2.0 * share / mean)
        return self.dice.expovariate(2.0 * (1.0 - share) / mean)

    def zipf(self, models: Sequence[str], exponent: float) -> str:
        """One of them, the first most often."""
        return self.dice.choices(models, [1.0 / (rank + 1) ** exponent for rank in range(len(models))])[0]

    # ---- requests

    def demand(self, model: str, prompt_tokens: int, tokens: float, **more: object) -> Demand:
        """A request that shares nothing with any other."""
        number = next(self._numbers)
        head = f"{number:x}/{self.dice.getrandbits(64):x} "
        prompt = head + "x" * max(0, prompt_tokens * CHARS_PER_TOKEN - len(head))
        links = ((hash_of(head), prompt_tokens),)
        return Demand(number, model, prompt, max(1, round(tokens)), links=links, **more)  # type: ignore[arg-type]

    def single(self, at: float, demand: Demand) -> Talk:
        """A request by itself."""
        return Talk(at, (Turn(0.0, demand),))

    def chat(
        self, at: float, model: str, turns: int, *, first: int, grows: int, answer: float, think: float,
        system: str = "", client: str = "anybody",
    ) -> Talk:  # fmt: skip
        """A chat whose each prompt repeats all that was said before; it grows by `grows` tokens a turn."""
        head = f"{next(self._numbers):x}/{self.dice.getrandbits(64):x} "
        text = system + head + "x" * max(0, first * CHARS_PER_TOKEN - len(system) - len(head))
        links = [(hash_of(system), len(system) // CHARS_PER_TOKEN)] if system else []
        parts = []
        for turn in range(turns):
            links.append((hash_of(f"{head}{turn}"), len(text) // CHARS_PER_TOKEN))
            tokens = max(1, round(self.dice.expovariate(1.0 / answer)))
            said = f"{turn}" + "y" * (min(tokens, max(1, grows - 1)) * CHARS_PER_TOKEN - 1)
            number = next(self._numbers)
            demand = Demand(number, model, text, tokens, client, tuple(links), answer=said)
            parts.append(Turn(self.dice.expovariate(1.0 / think) if turn else 0.0, demand))
            text += said + "z" * max(4, grows * CHARS_PER_TOKEN - len(said))
        return Talk(at, tuple(parts))


def hash_of(text: str) -> int:
    """A key for a text, the same in every process (Python's own hash is not)."""
    return zlib.crc32(text.encode()) << 24 | len(text)
