"""The fixed words of outcomes, put so that a person understands them."""

from __future__ import annotations

from typing import Final

from fleet.facts import Culprit

_WORDS: Final = {
    "backend_unreachable": "cannot be reached",
    "backend_broke": "breaks off",
    "bad_answer": "answers nonsense",
    "connect_timeout": "takes no connections",
    "first_byte_timeout": "does not begin to answer",
    "idle_timeout": "falls silent",
    "stream_error": "breaks off with an error",
    "revoked": "was taken away",
    "no_server": "no server can take them",
    "queue_full": "the queue is full",
    "queue_timeout": "they wait too long",
    "total_timeout": "they take too long",
    "loop_detected": "the fleet is one of its own servers",
}


def words(outcome: str) -> str:
    """What an outcome means, as the end of a sentence about a server (or about the requests, without one)."""
    if outcome.startswith("refused_"):
        return f"answers {outcome.removeprefix('refused_')}"
    return _WORDS.get(outcome, outcome.replace("_", " "))


def cause(culprit: Culprit) -> str:
    """Who and why: `gpu-042 cannot be reached`."""
    said = words(culprit.outcome)
    return f"{culprit.server} {said}" if culprit.server else f"because {said}"
