"""Orders to circuit breakers: force them, reset them, test whether a pair has recovered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from actors.kit.reply import all_heard, heard
from fleet.breakers.recovery_log import Source
from fleet.breakers.values import BreakerState
from fleet.common.errors import Conflict
from fleet.common.ids import Pair, ServerId
from web.admin.breakers import views as breaker_view
from web.admin.breakers.breakers import PairPath, asking_of, pairs_of, view_of
from web.admin.breakers.views import LOWER, named_shape
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import Optional, Said

if TYPE_CHECKING:
    from fleet.breakers.values import BreakerView

_WHOM: Final = "a breaker"
_UNDER_WAY: Final = "a test that is under way counts when it ends"

topic = RouteGroup("breaker-orders", "Orders to circuit breakers.")

FORCED: Final = {"success": bool, "message": str, "circuitBreaker": named_shape()}
ALL_FORCED: Final = {
    "success": bool,
    "message": str,
    "serverId": str,
    "count": Said(int, "breakers forced"),
    "skipped": Said(int, "models for which there was no room for another breaker"),
    "circuitBreakers": [named_shape()],
}
RESET: Final = {
    "success": bool,
    "message": str,
    "previousState": LOWER,
    "currentState": LOWER,
    "testCancelled": bool,
}
ALL_RESET: Final = {**RESET, "serverId": str, "count": Said(int, "breakers reset")}
TESTED: Final = {
    "success": Said(bool, "whether a test was made and passed"),
    "message": str,
    "breakerState": LOWER,
    "error": Optional(Said(str, "why not")),
}


# ---- forcing


@topic.post(
    "/circuit-breakers/<server>/<path:model>/open",
    "Keep a model on a server from traffic until its breaker is reset; the server need not list the model yet.",
    action="force breaker open",
    returns=FORCED,
    fails=(409, 503),
    seed=True,
)
async def open_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    return await _forced(asked, server, model, BreakerState.OPEN)


@topic.post(
    "/circuit-breakers/<server>/<path:model>/close",
    "Let traffic through, whatever fails, until the breaker is reset.",
    action="force breaker closed",
    returns=FORCED,
    fails=(409, 503),
    seed=True,
)
async def close_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    return await _forced(asked, server, model, BreakerState.CLOSED)


@topic.post(
    "/circuit-breakers/<server>/<path:model>/half-open",
    "Let only a few requests at a time through until the breaker is reset.",
    action="force breaker half-open",
    returns=FORCED,
    fails=(409, 503),
    seed=True,
)
async def half_open_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    return await _forced(asked, server, model, BreakerState.HALF_OPEN)


@topic.post(
    "/circuit-breakers/<server>/open",
    "The same for every model that a server lists: open.",
    action="force breakers open",
    returns=ALL_FORCED,
    fails=(409, 503),
)
async def open_server(asked: AdminRequest, server: str) -> dict[str, Any]:
    return await _all_forced(asked, server, BreakerState.OPEN)


@topic.post(
    "/circuit-breakers/<server>/close",
    "The same for every model that a server lists: closed.",
    action="force breakers closed",
    returns=ALL_FORCED,
    fails=(409, 503),
)
async def close_server(asked: AdminRequest, server: str) -> dict[str, Any]:
    return await _all_forced(asked, server, BreakerState.CLOSED)


@topic.post(
    "/circuit-breakers/<server>/half-open",
    "The same for every model that a server lists: half-open.",
    action="force breakers half-open",
    returns=ALL_FORCED,
    fails=(409, 503),
)
async def half_open_server(asked: AdminRequest, server: str) -> dict[str, Any]:
    return await _all_forced(asked, server, BreakerState.HALF_OPEN)


# ---- resetting


@topic.post(
    "/circuit-breakers/<server>/<path:model>/reset",
    "Close a breaker and forget its failures, and who forced it.",
    action="reset breaker",
    returns=RESET,
    fails=(409, 503),
    seed=True,
)
async def reset_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    before, after = view_of(asked, asking), await _reset(asked, [asking.pair])
    asked.note.change(before=_kept(before), after=_kept(view_of(asked, asking)))
    return {
        "success": True,
        "message": f"the breaker of {asking.pair.model} on {server} is reset",
        "previousState": before.state.value,
        "currentState": after[0].state.value if after else BreakerState.CLOSED.value,
        "testCancelled": before.active_tests > 0 and view_of(asked, asking).active_tests == 0,
    }


@topic.post(
    "/circuit-breakers/<server>/reset",
    "Reset all breakers of a server.",
    action="reset breakers",
    returns=ALL_RESET,
    fails=(409, 503),
    seed=True,
)
async def reset_server(asked: AdminRequest, server: str) -> dict[str, Any]:
    cell = asked.system.cell(ServerId(server))
    asked.note.about(server=server)
    _enabled(asked)
    every = [PairPath(cell, pair) for pair in pairs_of(cell)]
    before = [view_of(asked, asking) for asking in every]
    after = await _reset(asked, [asking.pair for asking in every])
    asked.note.change(before=_counted(before), after=_counted([view_of(asked, asking) for asking in every]))
    tested = [PairPath(cell, view.pair) for view in before if view.active_tests]
    return {
        "success": True,
        "message": f"{len(after)} breakers of server {server} are reset",
        "serverId": server,
        "count": len(after),
        "previousState": breaker_view.summary(before, 0.0)["state"],
        "currentState": breaker_view.summary(after, 0.0)["state"],
        "testCancelled": any(not view_of(asked, asking).active_tests for asking in tested),
    }


# ---- testing


@topic.post(
    "/servers/<server>/models/<path:model>/recovery-test",
    "Ask a half-open pair for one token now. A passed test counts as a success, and enough of them close the breaker.",
    action="test recovery",
    returns=TESTED,
    fails=(409, 503),
    seed=True,
)
async def recovery_test(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    state = view_of(asked, asking).state
    error = f"the breaker is {state.value}; only a half-open one can be tested"
    if state is BreakerState.HALF_OPEN:
        error = await _tested(asked, asking.pair)
    outcome = "did not pass" if error else "passed"
    shown: dict[str, Any] = {
        "success": not error,
        "message": f"the recovery test of {asking.pair.model} on {server} {outcome}",
        "breakerState": view_of(asked, asking).state.value,
    }
    return {**shown, "error": error} if error else shown


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


async def _forced(asked: AdminRequest, server: str, model: str, state: BreakerState) -> dict[str, Any]:
    asking = asking_of(asked, server, model)
    asked.note.about(server=server, model=asking.pair.model)
    _enabled(asked)
    before = view_of(asked, asking)
    (view,) = await _force_all(asked, [asking.pair], state)
    asked.note.change(before=_kept(before), after=_kept(view))
    message = f"the breaker of {asking.pair.model} on {server} is {state.value} until it is reset"
    return {"success": True, "message": message, "circuitBreaker": breaker_view.named(view)}


async def _all_forced(asked: AdminRequest, server: str, state: BreakerState) -> dict[str, Any]:
    cell = asked.system.cell(ServerId(server))
    asked.note.about(server=server)
    _enabled(asked)
    pairs = pairs_of(cell)
    before = [view_of(asked, PairPath(cell, pair)) for pair in pairs]
    views = await _force_all(asked, pairs, state) if pairs else []
    asked.note.change(before=_counted(before), after=_counted(views))
    return {
        "success": True,
        "message": f"{len(views)} breakers of server {server} are {state.value} until they are reset",
        "serverId": server,
        "count": len(views),
        "skipped": len(pairs) - len(views),
        "circuitBreakers": [breaker_view.named(view) for view in views],
    }


def _kept(view: BreakerView) -> dict[str, Any]:
    """What the audit log is told of one breaker."""
    return {"state": view.state.value, "forcedBy": view.forced_by}


def _counted(views: Sequence[BreakerView]) -> dict[str, int]:
    """What the audit log is told of many: how many there are of each state."""
    return dict(Counter(view.state.value for view in views))


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
