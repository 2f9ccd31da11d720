"""A batch of finished requests, grouped once for all who count them: by server and model, and there by endpoint.

Whoever counts is handed the batch and takes the groups that it needs. Nobody changes what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, Self, TypeVar

from fleet.breakers.failure_classes import NO_ERRORS


class PlacedRequest(Protocol):
    """Where a finished request went: `server` is empty when none was found."""

    @property
    def endpoint(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def model(self) -> str: ...


class GroupedRequest(PlacedRequest, Protocol):
    """What a finished request must say of itself to be grouped. Seconds."""

    @property
    def outcome(self) -> str: ...
    @property
    def first_byte_seconds(self) -> float | None: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def stream(self) -> bool: ...


R = TypeVar("R", bound=GroupedRequest, covariant=True)


class RequestGroup(Generic[R]):
    """Requests of one server and model, in their order, and what everybody would add up of them.

    `began` are the streams whose first token came. `errors` counts as statistics do (see `failure_classes`).
    """

    __slots__ = ("began", "endpoints", "errors", "model", "outcomes", "output", "prompt", "requests", "server")

    def __init__(self, server: str, model: str, requests: Sequence[R]) -> None:
        self.server = server
        self.model = model
        self.requests = requests
        prompt = output = 0
        outcomes: dict[str, int] = {}
        first, mixed = requests[0].endpoint, False
        for each in requests:
            outcomes[each.outcome] = outcomes.get(each.outcome, 0) + 1
            prompt += each.prompt_tokens or 0
            output += each.output_tokens or 0
            mixed = mixed or each.endpoint != first
        self.prompt = prompt
        self.output = output
        self.outcomes: Mapping[str, int] = outcomes
        self.endpoints: Mapping[str, Sequence[R]] = _by_endpoint(requests) if mixed else {first: requests}
        self.began: Sequence[R] = [each for each in requests if each.stream and each.first_byte_seconds is not None]
        self.errors = sum([number for outcome, number in outcomes.items() if outcome not in NO_ERRORS])


class RequestBatch(tuple[R, ...]):
    """Requests that have finished, in the order in which they did; `groups` are those of one server and model."""

    groups: Sequence[RequestGroup[R]]
    outcomes: Mapping[str, int]
    """How many ended how."""

    def __new__(cls, requests: Iterable[R]) -> Self:
        made = super().__new__(cls, requests)
        found: dict[tuple[str, str], list[R]] = {}
        for each in made:
            found.setdefault((each.server, each.model), []).append(each)
        made.groups = [RequestGroup(server, model, group) for (server, model), group in found.items()]
        outcomes: dict[str, int] = {}
        for group in made.groups:
            for outcome, number in group.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + number
        made.outcomes = outcomes
        return made


def first_tokens(groups: Iterable[RequestGroup[GroupedRequest]]) -> list[float]:
    """How long the first tokens of their streams took, from arrival; seconds, in the order of `began`."""
    return [each.first_byte_seconds or 0.0 for group in groups for each in group.began]


def _by_endpoint(requests: Sequence[R]) -> Mapping[str, Sequence[R]]:
    found: dict[str, list[R]] = {}
    for each in requests:
        found.setdefault(each.endpoint, []).append(each)
    return found
