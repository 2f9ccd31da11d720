"""What a simulated model says: the same words for the same model, prompt and seed, on every server."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_OPENING: Final = ("Simulated", " answer", ":")
_JSON: Final = ("{", '"simulated"', ":", " true", "}")
_VOCABULARY: Final = (
    "amber basin cedar delta ember fjord grove harbor island jetty kettle lantern meadow needle orchard pebble "
    "quarry river summit timber upland valley willow yonder zephyr anchor beacon canyon dune estuary fern glacier"
)
_WORDS: Final = tuple(f" {word}" for word in _VOCABULARY.split())
_MASK: Final = 2**64 - 1
CHARS_PER_TOKEN: Final = 4


def count_tokens(text: str) -> int:
    """How many tokens a prompt has: one for every four characters, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def _noise(*parts: str) -> Iterator[int]:
    state = 0
    for part in parts:
        state = (state << 32 | zlib.crc32(part.encode("utf-8", "surrogatepass"), state & 0xFFFFFFFF)) & _MASK
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        yield state >> 33


def answer(model: str, prompt: str, seed: int, num_predict: int | None, *, as_json: bool) -> tuple[str, ...]:
    """The tokens of an answer: exactly `num_predict` of them, or else a natural length of 16 to 32."""
    if as_json:
        return _JSON[:num_predict]
    noise = _noise(model, prompt, str(seed))
    length = num_predict if num_predict is not None else 16 + next(noise) % 17
    words = (_WORDS[next(noise) % len(_WORDS)] for _ in range(length - len(_OPENING)))
    return (*_OPENING[:length], *words)


def embedding(model: str, text: str, dimensions: int) -> list[float]:
    """A unit vector for a text, the same on every server."""
    noise = _noise(model, text)
    raw = [next(noise) / 2**30 - 1.0 for _ in range(dimensions)]
    norm = sum(x * x for x in raw) ** 0.5 or 1.0
    return [round(x / norm, 8) for x in raw]
