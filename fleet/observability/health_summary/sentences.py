"""What can be said of the fleet, the worst first: each sentence looks at the facts, and says who and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from fleet.common import wording as say
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting.alert import Alert
from fleet.observability.alerting.conditions import down_servers, failing, slow_servers
from fleet.observability.alerting.facts import Facts, QueueFact, ServerFact
from fleet.observability.alerting.rule_wording import cause, words
from fleet.observability.alerting.rules import BY_NAME
from fleet.observability.health_summary.summary import Level

SATURATED: Final = 1 / 3
"""Share of `alerts.queue_wait` after which the queue is worth the line: sooner than it is worth an alert."""
MOST_SUBJECTS: Final = 20
_NAMED: Final = 3
"""Names in a headline; the rest is counted."""
_WHY: Final = 100
STARTING: Final = "starting"
DRAINING: Final = "draining"
UNPROBED: Final = "server_not_probed"
_PLANNED: Final = {"maintenance": "in maintenance", "draining": "draining", "drained": "drained"}
"""States that an operator wanted, and how they are said."""
_COVERED: Final = frozenset(
    (
        "FleetNoServers",
        "FleetManyServersDown",
        "FleetServerDown",
        "FleetModelUnservable",
        "FleetBreakerOpen",
        "FleetErrorBudgetBurnFast",
        "FleetServerSlow",
        "FleetQueueBacklog",
        "FleetQueueRejecting",
        "FleetQueuePaused",
        "FleetConfigReloadFailed",
        "FleetStoreDegraded",
        "FleetHistoryDropped",
    )
)
"""Rules whose condition has a sentence of its own."""


class SummaryInput(NamedTuple):
    """What is judged by."""

    facts: Facts
    alerts: AlertsSection
    firing: Sequence[Alert]


Said = tuple[Level, str, str, str, float | None, tuple[str, ...]]
"""Level, code, headline, plain, since, subjects."""
Sentence = Callable[[SummaryInput], Iterator[Said]]


def _draining(seen: SummaryInput) -> Iterator[Said]:
    if seen.facts.draining:
        text = f"shutting down: {say.plural(seen.facts.open_requests, 'request')} left"
        yield Level.PLANNED, DRAINING, text, text, None, ()


def _empty(seen: SummaryInput) -> Iterator[Said]:
    if not seen.facts.servers:
        text = "nothing to serve yet: add a server"
        yield Level.UNKNOWN, "no_servers", text, text, None, ()


def _starting(seen: SummaryInput) -> Iterator[Said]:
    """Until one is there to be used or all are probed: the first answers alone would call the fleet dead."""
    servers = seen.facts.servers
    states = [server.state for server in servers]
    if "unknown" in states and "ok" not in states:
        probed = len(states) - states.count("unknown")
        text = f"starting: {probed} of {say.plural(len(servers), 'server')} probed"
        yield Level.UNKNOWN, STARTING, text, text, None, ()


def _none_usable(seen: SummaryInput) -> Iterator[Said]:
    servers = seen.facts.servers
    if not servers or any(server.state == "ok" for server in servers):
        return
    down = down_servers(seen.facts)
    text = f"none of the {len(servers)} servers can be used" if len(servers) > 1 else "the only server cannot be used"
    states = ", ".join(
        f"{sum(s.state == state for s in servers)} {state}" for state in sorted({s.state for s in servers})
    )
    first = f": {_why(down[0])}" if len(down) == len(servers) == 1 else f": {states}"
    since = max(server.since for server in servers)
    yield Level.CRIT, "no_server", text + first, text, since, _servers(servers)


def _unservable(seen: SummaryInput) -> Iterator[Said]:
    if found := seen.facts.unservable:
        first = found[0]
        whose = f"its {first.holders} servers" if first.holders > 1 else "its only server"
        why = "down" if first.down == first.holders else "down, out of service or behind a breaker"
        more = f", and {len(found) - 1} more models" if len(found) > 1 else ""
        headline = f"{first.model} cannot be served: {whose} {'are' if first.holders > 1 else 'is'} {why}{more}"
        plain = f"{say.plural(len(found), 'model')} that clients ask for cannot be served"
        subjects = tuple(f"model:{each.model}" for each in found[:MOST_SUBJECTS])
        yield Level.CRIT, "model_unservable", headline, plain, None, subjects


def _errors(seen: SummaryInput) -> Iterator[Said]:
    traffic, alerts = seen.facts.traffic, seen.alerts
    if (share := failing(traffic, alerts)) is None:
        return
    before = (traffic.hours6.count - share.count, traffic.hours6.failed - share.failed)
    usual = (
        f" ({say.percent(max(before[1], 0) / before[0])} in the 6 hours before)"
        if before[0] >= alerts.error_requests
        else ""
    )
    plain = f"{say.percent(share.ratio)} of requests failed in 5 minutes{usual}"
    culprit = traffic.culprit
    if culprit is None:
        yield Level.CRIT, "errors", plain, plain, None, ()
        return
    about = (("server", culprit.server), ("model", culprit.model))
    subjects = tuple(f"{kind}:{name}" for kind, name in about if name)
    yield (
        Level.CRIT,
        "errors",
        f"{plain}, mostly {cause(culprit)}",
        f"{plain}: {words(culprit.outcome)}",
        None,
        subjects,
    )


def _rejecting(seen: SummaryInput) -> Iterator[Said]:
    queue = seen.facts.queue
    if queue.capacity and queue.waiting >= queue.capacity:
        text = f"the queue is full: {say.plural(queue.waiting, 'request waits', 'requests wait')}, new ones are refused"
        yield Level.CRIT, "queue_full", text, text, None, ()


def _paused(seen: SummaryInput) -> Iterator[Said]:
    queue = seen.facts.queue
    if queue.paused:
        plain = f"the queue is paused: {say.plural(queue.waiting, 'request waits', 'requests wait')}"
        by = f" (by {queue.paused_by})" if queue.paused_by else ""
        yield Level.WARN, "queue_paused", plain + by, plain, queue.paused_since, ()


def _down(seen: SummaryInput) -> Iterator[Said]:
    down = down_servers(seen.facts)
    if down:
        plain = f"{say.plural(len(down), 'server')} down"
        detail = _why(down[0]) if len(down) == 1 else _names([server.id for server in down])
        since = min(server.since for server in down)
        yield Level.WARN, "server_down", f"{plain}: {detail}", plain, since, _servers(down)


def _breakers(seen: SummaryInput) -> Iterator[Said]:
    found = seen.facts.breakers
    if found:
        plain = f"{say.plural(len(found), 'breaker')} open"
        names = _names([f"{each.pair.model} on {each.pair.server}" for each in found])
        subjects = tuple(f"breaker:{each.pair.server}/{each.pair.model}" for each in found[:MOST_SUBJECTS])
        yield Level.WARN, "breaker_open", f"{plain}: {names}", plain, min(each.since for each in found), subjects


def _saturated(seen: SummaryInput) -> Iterator[Said]:
    queue, now = seen.facts.queue, seen.facts.now
    if queue.oldest is None or now - queue.oldest < seen.alerts.queue_wait * SATURATED:
        return
    plain = f"queue {queue.waiting}, oldest waits {say.age(now - queue.oldest)}"
    headline = f"{plain}: {_slots(queue)}"
    began = queue.oldest + seen.alerts.queue_wait * SATURATED
    yield Level.WARN, "saturated", headline, plain, began, (f"model:{queue.model}",)


def _slots(queue: QueueFact) -> str:
    """What those who wait want, and how much of it there is."""
    if not queue.slots:
        return f"most want {queue.model}"
    if queue.slots == queue.taken == 1:
        return f"the only slot for {queue.model} is taken"
    full = f"all {queue.slots}" if queue.taken >= queue.slots else f"{queue.taken} of {queue.slots}"
    return f"{full} slots for {queue.model} are taken"


def _slow(seen: SummaryInput) -> Iterator[Said]:
    found = sorted(slow_servers(seen.facts, seen.alerts), key=lambda each: -each[1])
    if found:
        name, ratio, _ = found[0]
        plain = f"{say.plural(len(found), 'server')} much slower than the rest"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        headline = f"{name} answers {say.times(ratio)} slower than the rest{more}"
        subjects = tuple(f"server:{each[0]}" for each in found[:MOST_SUBJECTS])
        yield Level.WARN, "server_slow", headline, plain, None, subjects


def _itself(seen: SummaryInput) -> Iterator[Said]:
    facts = seen.facts
    if facts.reload is not None:
        text = "the configuration file cannot be used, the last good one is in effect"
        yield Level.WARN, "config_reload_failed", text, text, facts.reload.since, ("config",)
    if facts.store is not None:
        plain = "what changes is not kept on disk"
        why = f": {facts.store.text[:_WHY]}" if facts.store.text else ""
        yield Level.WARN, "store_degraded", plain + why, plain, facts.store.since, ("store",)
    if facts.aside is not None:
        plain = f"{say.plural(facts.aside.number, 'kept server')} cannot be used and set aside"
        yield Level.WARN, "server_set_aside", f"{plain}: {facts.aside.text}", plain, facts.aside.since, ("store",)


def _other_alerts(seen: SummaryInput) -> Iterator[Said]:
    """What fires and is in no other sentence: nobody shall read that all is well meanwhile."""
    for alert in seen.firing:
        if alert.severity != "info" and alert.rule not in _COVERED and alert.silenced_until is None:
            subjects = tuple(f"{name}:{value}" for name, value in alert.subject.items())
            since = seen.facts.now - (seen.facts.at - alert.since)
            yield Level.WARN, "alert", alert.title, _plain_summary(alert), since, subjects
            return


def _plain_summary(alert: Alert) -> str:
    rule = BY_NAME.get(alert.rule)
    return "an alert fires" if rule is None else rule.summary.rstrip(".")[:1].lower() + rule.summary.rstrip(".")[1:]


def _dropped(seen: SummaryInput) -> Iterator[Said]:
    if (dropped := seen.facts.dropped) is not None:
        text = f"{say.plural(dropped.number, 'request')} missing from the statistics"
        yield Level.WARN, "records_dropped", text, text, dropped.since, ()


def _unprobed(seen: SummaryInput) -> Iterator[Said]:
    found = [server for server in seen.facts.servers if server.state == "unknown"]
    if found:
        plain = f"{len(found)} of {len(seen.facts.servers)} servers not probed yet"
        since = min(server.since for server in found)
        yield Level.UNKNOWN, UNPROBED, plain, plain, since, _servers(found)


def _planned(seen: SummaryInput) -> Iterator[Said]:
    servers = seen.facts.servers
    out = [server for server in servers if server.state in _PLANNED]
    if not out:
        return
    counts = [(state, number) for state in _PLANNED if (number := sum(server.state == state for server in out))]
    parts = [f"{number} {_PLANNED[state]}" for state, number in counts]
    parts[0] = f"{say.plural(counts[0][1], 'server')} {_PLANNED[counts[0][0]]}"
    text = f"{', '.join(parts)}, {len(servers) - len(out)} serving"
    yield Level.PLANNED, "planned", text, text, min(server.since for server in out), _servers(out)


def _misjudged(seen: SummaryInput) -> Iterator[Said]:
    """All is well, but a number that an operator has chosen is not what the server does."""
    if caps := seen.facts.caps:
        first = caps[0]
        more = f", and {len(caps) - 1} more" if len(caps) > 1 else ""
        serves = say.plural(first.serves, "request")
        headline = f"{first.server} serves {serves} at once, its max_concurrency is {first.cap}{more}: auto follows"
        plain = f"max_concurrency of {say.plural(len(caps), 'server')} is not what they serve at once"
        subjects = tuple(f"server:{each.server}" for each in caps[:MOST_SUBJECTS])
        yield Level.OK, "slots_misjudged", headline, plain, None, subjects


def _well(seen: SummaryInput) -> Iterator[Said]:
    traffic, number = seen.facts.traffic, len(seen.facts.servers)
    who = f"All {number} servers healthy" if number > 1 else "The server is healthy"
    busy = f", {say.rate(traffic.per_second, 'req')}" if traffic.per_second else ", no requests in the last minute"
    first = f", TTFT p95 {say.duration(traffic.first.p95)}" if traffic.first.count else ""
    text = who + busy + first
    yield Level.OK, "healthy", text, text, None, ()


SENTENCES: Final[tuple[Sentence, ...]] = (
    _draining,
    _empty,
    _starting,
    _none_usable,
    _unservable,
    _errors,
    _rejecting,
    _paused,
    _down,
    _breakers,
    _saturated,
    _slow,
    _itself,
    _other_alerts,
    _dropped,
    _unprobed,
    _planned,
    _misjudged,
    _well,
)
"""The worst first; the last one always has something to say."""


def _why(server: ServerFact) -> str:
    """Who and why; reasons mostly begin with the server's name."""
    why = server.why.removeprefix(f"{server.id}: ").rstrip(".")
    return f"{server.id}: {why[:_WHY]}" if why else server.id


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _servers(servers: Sequence[ServerFact]) -> tuple[str, ...]:
    return tuple(f"server:{server.id}" for server in servers[:MOST_SUBJECTS])
