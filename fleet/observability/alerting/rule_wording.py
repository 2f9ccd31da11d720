"""The fixed words of outcomes, put so that a person understands them."""

from __future__ import annotations

from typing import Final

from fleet.observability.alerting.facts import Culprit

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


_NOBODYS: Final = frozenset(("no_server", "queue_full", "queue_timeout", "total_timeout", "loop_detected"))
"""Outcomes that no server brought about."""


def cause(culprit: Culprit) -> str:
    """Who and why: `gpu-042 cannot be reached (llama3:8b)`, `llama3:8b answers 500`."""
    said, model = words(culprit.outcome), culprit.model
    if not culprit.server and model and culprit.outcome not in _NOBODYS:
        return f"{model} {said}"
    return (f"{culprit.server} {said}" if culprit.server else f"because {said}") + (f" ({model})" if model else "")
