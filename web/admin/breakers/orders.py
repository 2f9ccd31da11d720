"""Orders to circuit breakers: force them, reset them, test whether a pair has recovered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import UNSET, UnsetType

from actors.kit.reply import all_heard, heard
from fleet.breakers.recovery_log import Source
from fleet.breakers.values import BreakerState
from fleet.common.errors import Conflict
from fleet.common.ids import Pair, ServerId
from web.admin.breakers import views
from web.admin.breakers.breakers import PairPath, asking_of, pairs_of, view_of
from web.admin.breakers.views import LOWER, NamedBreakerJson
from web.admin.kit.answers import JsonObject, MessageAnswer
from web.admin.kit.routes import AdminRequest, RouteGroup

if TYPE_CHECKING:
    from fleet.breakers.values import BreakerView

_WHOM: Final = "a breaker"
_UNDER_WAY: Final = "a test that is under way counts when it ends"

topic = RouteGroup("breaker-orders", "Orders to circuit breakers.")


class ForcedAnswer(MessageAnswer, kw_only=True):
    """One breaker that is forced now."""

    circuit_breaker: NamedBreakerJson


class AllForcedAnswer(MessageAnswer, kw_only=True):
    """All breakers of a server, forced."""

    server_id: str
    count: Annotated[int, "breakers forced"]
    skipped: Annotated[int, "models for which there was no room for another breaker"]
    circuit_breakers: list[NamedBreakerJson]


class ResetAnswer(MessageAnswer, kw_only=True):
    """One breaker before and after."""

    previous_state: BreakerState
    current_state: BreakerState
    test_cancelled: bool


class AllResetAnswer(MessageAnswer, kw_only=True):
    """A server as a whole before and after."""

    server_id: str
    count: Annotated[int, "breakers reset"]
    previous_state: LOWER
    current_state: LOWER
    test_cancelled: bool


class TestedAnswer(JsonObject, kw_only=True):
    """How a test went."""

    success: Annotated[bool, "whether a test was made and passed"]
    message: str
    breaker_state: BreakerState
    error: Annotated[str, "why not"] | UnsetType = UNSET


# ---- forcing


@topic.post(
    "/circuit-breakers/<server>/<path:model>/open",
    "Keep a model on a server from traffic until its breaker is reset; the server need not list the model yet.",
    action="force breaker open",
    fails=(409, 503),
    seed=True,
)
async def open_pair(asked: AdminRequest, server: str, model: str) -> ForcedAnswer:
    return await _forced(asked, server, model, BreakerState.OPEN)


@topic.post(
    "/circuit-breakers/<server>/<path:model>/close",
    "Let traffic through, whatever fails, until the breaker is reset.",
    action="force breaker closed",
    fails=(409, 503),
    seed=True,
)
async def close_pair(asked: AdminRequest, server: str, model: str) -> ForcedAnswer:
    return await _forced(asked, server, model, BreakerState.CLOSED)


@topic.post(
    "/circuit-breakers/<server>/<path:model>/half-open",
    "Let only a few requests at a time through until the breaker is reset.",
    action="force breaker half-open",
    fails=(409, 503),
    seed=True,
)
async def half_open_pair(asked: AdminRequest, server: str, model: str) -> ForcedAnswer:
    return await _forced(asked, server, model, BreakerState.HALF_OPEN)


@topic.post(
    "/circuit-breakers/<server>/open",
    "The same for every model that a server lists: open.",
    action="force breakers open",
    fails=(409, 503),
)
async def open_server(asked: AdminRequest, server: str) -> AllForcedAnswer:
    return await _all_forced(asked, server, BreakerState.OPEN)


@topic.post(
    "/circuit-breakers/<server>/close",
    "The same for every model that a server lists: closed.",
    action="force breakers closed",
    fails=(409, 503),
)
async def close_server(asked: AdminRequest, server: str) -> AllForcedAnswer:
    return await _all_forced(asked, server, BreakerState.CLOSED)


@topic.post(
    "/circuit-breakers/<server>/half-open",
    "The same for every model that a server lists: half-open.",
    action="force breakers half-open",
    fails=(409, 503),
)
async def half_open_server(asked: AdminRequest, server: str) -> AllForcedAnswer:
    return await _all_forced(asked, server, BreakerState.HALF_OPEN)


# ---- resetting


@topic.post(
    "/circuit-breakers/<server>/<path:model>/reset",
    "Close a breaker and forget its failures, and who forced it.",
    action="reset breaker",
    fails=(409, 503),
    seed=True,
)
async def reset_pair(asked: AdminRequest, server: str, model: str) -> ResetAnswer:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    before, after = view_of(asked, asking), await _reset(asked, [asking.pair])
    asked.note.change(before=_kept(before), after=_kept(view_of(asked, asking)))
    return ResetAnswer(
        message=f"the breaker of {asking.pair.model} on {server} is reset",
        previous_state=before.state,
        current_state=after[0].state if after else BreakerState.CLOSED,
        test_cancelled=before.active_tests > 0 and view_of(asked, asking).active_tests == 0,
    )


@topic.post(
    "/circuit-breakers/<server>/reset",
    "Reset all breakers of a server.",
    action="reset breakers",
    fails=(409, 503),
    seed=True,
)
async def reset_server(asked: AdminRequest, server: str) -> AllResetAnswer:
    cell = asked.system.cell(ServerId(server))
    asked.note.about(server=server)
    _enabled(asked)
    every = [PairPath(cell, pair) for pair in pairs_of(cell)]
    before = [view_of(asked, asking) for asking in every]
    after = await _reset(asked, [asking.pair for asking in every])
    asked.note.change(before=_counted(before), after=_counted([view_of(asked, asking) for asking in every]))
    at = asked.reading()
    tested = [PairPath(cell, view.pair) for view in before if view.active_tests]
    return AllResetAnswer(
        message=f"{len(after)} breakers of server {server} are reset",
        server_id=server,
        count=len(after),
        previous_state=views.summary(before, 0.0, at).state,
        current_state=views.summary(after, 0.0, at).state,
        test_cancelled=any(not view_of(asked, asking).active_tests for asking in tested),
    )


# ---- testing


@topic.post(
    "/servers/<server>/models/<path:model>/recovery-test",
    "Ask a half-open pair for one token now. A passed test counts as a success, and enough of them close the breaker.",
    action="test recovery",
    fails=(409, 503),
    seed=True,
)
async def recovery_test(asked: AdminRequest, server: str, model: str) -> TestedAnswer:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    state = view_of(asked, asking).state
    error = f"the breaker is {state.value}; only a half-open one can be tested"
    if state is BreakerState.HALF_OPEN:
        error = await _tested(asked, asking.pair)
    outcome = "did not pass" if error else "passed"
    return TestedAnswer(
        success=not error,
        message=f"the recovery test of {asking.pair.model} on {server} {outcome}",
        breaker_state=view_of(asked, asking).state,
        error=error or UNSET,
    )


async def _tested(asked: AdminRequest, pair: Pair) -> str:
    """Why the test did not pass; empty if it did. Raises NoAnswer: it is under way, and will count when it ends."""
    promise = asked.system.breakers.test(pair)
    passed = None if promise is None else await heard(promise, _WHOM, details=_UNDER_WAY)
    if passed is None:
        return "no test is possible now: the server is busy or not healthy, or the model is not in its memory"
    page = asked.system.recovery_log.page(pair.server)
    tests = (each for each in page.failures if each.model == pair.model and each.source is Source.RECOVERY_TEST)
    return "" if passed else next((each.error for each in tests), "the test failed")


# ---- common ground


def _enabled(asked: AdminRequest) -> None:
    if not asked.system.breakers.enabled:
        raise Conflict("circuit breakers are switched off", details="set enable_circuit_breaker to true first")


async def _forced(asked: AdminRequest, server: str, model: str, state: BreakerState) -> ForcedAnswer:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    before = view_of(asked, asking)
    (view,) = await _force_all(asked, [asking.pair], state)
    asked.note.change(before=_kept(before), after=_kept(view))
    message = f"the breaker of {asking.pair.model} on {server} is {state.value} until it is reset"
    return ForcedAnswer(message=message, circuit_breaker=views.named(NamedBreakerJson, view, asked.reading()))


async def _all_forced(asked: AdminRequest, server: str, state: BreakerState) -> AllForcedAnswer:
    cell = asked.system.cell(ServerId(server))
    asked.note.about(server=server)
    _enabled(asked)
    pairs = pairs_of(cell)
    before = [view_of(asked, PairPath(cell, pair)) for pair in pairs]
    after = await _force_all(asked, pairs, state) if pairs else []
    asked.note.change(before=_counted(before), after=_counted(after))
    at = asked.reading()
    return AllForcedAnswer(
        message=f"{len(after)} breakers of server {server} are {state.value} until they are reset",
        server_id=server,
        count=len(after),
        skipped=len(pairs) - len(after),
        circuit_breakers=[views.named(NamedBreakerJson, view, at) for view in after],
    )


def _kept(view: BreakerView) -> dict[str, str | None]:
    """What the audit log is told of one breaker."""
    return {"state": view.state.value, "forcedBy": view.forced_by}


def _counted(breakers: Sequence[BreakerView]) -> dict[str, int]:
    """What the audit log is told of many: how many there are of each state."""
    return dict(Counter(view.state.value for view in breakers))


async def _force_all(asked: AdminRequest, pairs: Sequence[Pair], state: BreakerState) -> list[BreakerView]:
    """At least one view. Raises Conflict if there is no room for any of them."""
    promises = [asked.system.breakers.force(pair, state, asked.by.name) for pair in pairs]
    possible = [promise for promise in promises if promise is not None]
    if not possible:
        raise Conflict("there are too many breakers already", details="reset some that are not closed")
    return await all_heard(possible, _WHOM)


async def _reset(asked: AdminRequest, pairs: Sequence[Pair]) -> list[BreakerView]:
    """The views of those that there were."""
    promises = [promise for pair in pairs if (promise := asked.system.breakers.reset(pair)) is not None]
    return await all_heard(promises, _WHOM)
