"""What each rule looks at inside the app: from the facts to what is wrong, with whom. One function per rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from fleet.common import wording as say
from fleet.common.ids import Pair
from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting import promql as limits
from fleet.observability.alerting.facts import Facts, FirstTokenTimes, ServerFact, Share, Traffic
from fleet.observability.alerting.rule_wording import cause
from fleet.scheduling.server_words import METRICS

Subject = tuple[tuple[str, str], ...]
"""What an alert is about, by label; empty: the fleet."""
SOME: Final = 3
"""Failures that are no accident."""
SURE: Final = 3.0
"""Standard deviations beyond which it is no chance any more."""
IN_SERVICE: Final = tuple(METRICS.values())


class Finding(NamedTuple):
    """A condition that holds. `since` is when it began on the caller's clock; None: when it was first found.

    `threshold` is None if it is the rule's own.
    """

    subject: Subject
    title: str
    detail: str = ""
    value: float | None = None
    since: float | None = None
    threshold: float | None = None


Condition = Callable[[Facts, AlertsSection], Iterator[Finding]]


def down_servers(facts: Facts) -> list[ServerFact]:
    """Those that should work and answer no probes."""
    return [server for server in facts.servers if server.state == "down"]


def slow_servers(facts: Facts, alerts: AlertsSection) -> list[tuple[str, float, float]]:
    """Servers that are slower than the others: who, how many times, and their 95th percentile in seconds."""
    busy = {name: pace for name, pace in facts.traffic.servers.items() if pace.count >= alerts.slow_requests}
    if len(busy) < limits.FEWEST_SERVERS:
        return []
    middle = median(pace.p95 for pace in busy.values())
    return [(name, pace.p95 / middle, pace.p95) for name, pace in busy.items() if _slow(pace, middle, alerts)]


def _slow(pace: FirstTokenTimes, middle: float, alerts: AlertsSection) -> bool:
    return pace.p95 > limits.LEAST_SLOW and middle > 0 and pace.p95 / middle > alerts.slow_ratio


def _no_servers(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    servers = facts.servers
    if servers and not any(server.state == "ok" for server in servers):
        since = max(server.since for server in servers)
        yield Finding((), f"none of the {len(servers)} servers can be used", _states(servers), 0.0, since)


def _states(servers: tuple[ServerFact, ...]) -> str:
    counts: dict[str, int] = {}
    for server in servers:
        counts[server.state] = counts.get(server.state, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def _many_down(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    down = down_servers(facts)
    serving = sum(server.state in IN_SERVICE for server in facts.servers)
    if len(down) >= limits.LEAST_DOWN and len(down) / serving > limits.MANY:
        title = f"{len(down)} of {serving} servers are down"
        yield Finding((), title, _first_names(down), len(down) / serving, max(server.since for server in down))


def _first_names(servers: list[ServerFact], most: int = 5) -> str:
    names = ", ".join(server.id for server in servers[:most])
    return names if len(servers) <= most else f"{names} and {len(servers) - most} more"


def _server_down(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for server in facts.servers:
        if server.state == "down":
            detail = f"{server.why.rstrip('.')}; {say.plural(server.rounds, 'probe')} failed in a row"
            title = f"{server.id} is down"
            subject = (("server", server.id),)
            yield Finding(subject, title, detail, float(server.rounds), server.since, float(facts.probe_failures))


def _unservable(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for each in facts.unservable:
        detail = f"{say.plural(each.holders, 'server')} have it, {each.down} of them down"
        yield Finding((("model", each.model),), f"{each.model} cannot be served", detail, 0.0)


def _drain_stuck(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for server in facts.servers:
        lasted = facts.now - server.since
        if server.state == "draining" and lasted > alerts.drain:
            title = f"{server.id} has been draining for {say.age(lasted)}"
            yield Finding((("server", server.id),), title, "its requests do not end", lasted, server.since)


def failing(traffic: Traffic, alerts: AlertsSection) -> Share | None:
    """The requests of five minutes, if too many of them failed and that is not over yet."""
    share = traffic.minutes5
    high = share.count >= alerts.error_requests and share.ratio > alerts.error_rate
    return share if high and not _over(share, traffic.lately, alerts.error_rate) else None


def _over(share: Share, lately: Sequence[Share], limit: float) -> bool:
    """Whether a younger part of a window says that the fault is gone; the youngest that says anything is believed.

    As many must have ended in it that, with the fault as it was before, its few failures are beyond chance (three
    standard deviations); some failures, and too many for their number, say that it goes on. While hardly anybody asks,
    nobody knows.
    """
    for young in lately:
        if young.ratio > limit and young.failed >= SOME:
            return False
        before = Share(share.count - young.count, share.failed - young.failed)
        ratio = min(max(before.ratio, limit), 1.0)
        expected = young.count * ratio
        chance = SURE * (expected * (1 - ratio)) ** 0.5
        if young.count and young.ratio <= limit and young.failed + chance < expected:
            return True
    return False


def _burn_fast(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    share = failing(facts.traffic, alerts)
    if share is not None and facts.traffic.hour.ratio > alerts.error_rate:
        title = f"{say.percent(share.ratio)} of requests failed in 5 minutes"
        yield Finding((), title, _errors(facts, share), share.ratio)


def _burn_slow(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    near, far, younger = facts.traffic.minutes30, facts.traffic.hours6, facts.traffic.minutes5
    limit = alerts.error_rate * limits.SLOW_SHARE
    high = near.count >= alerts.error_requests and near.ratio > limit and far.ratio > limit
    if high and not _over(near, (*facts.traffic.lately, younger) if facts.traffic.lately else (), limit):
        title = f"{say.percent(near.ratio)} of requests failed in 30 minutes"
        yield Finding((), title, _errors(facts, near), near.ratio)


def _errors(facts: Facts, share: Share) -> str:
    text = f"{share.failed} of {share.count}"
    return text if facts.traffic.culprit is None else f"{text}, mostly {cause(facts.traffic.culprit)}"


def _first_token(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    pace = facts.traffic.first
    if pace.count >= limits.LEAST_STREAMS and pace.p95 > alerts.first_token:
        title = f"the first token takes {say.duration(pace.p95)} (95th percentile)"
        yield Finding((), title, f"of {pace.count} streams in 5 minutes", pace.p95)


def _server_slow(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for name, ratio, p95 in slow_servers(facts, alerts):
        title = f"{name} answers {say.times(ratio)} slower than the rest"
        detail = f"its first token takes {say.duration(p95)} (95th percentile of 15 minutes)"
        yield Finding((("server", name),), title, detail, ratio)


def _stalls(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    stalls, streams = facts.traffic.stalls, facts.traffic.streams
    if stalls >= limits.LEAST_STALLS and stalls / max(streams, stalls) > alerts.stall_share:
        share = stalls / max(streams, stalls)
        yield Finding((), f"{say.percent(share)} of streams stall", f"{stalls} of {streams} in 15 minutes", share)


def _backlog(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    queue = facts.queue
    if queue.oldest is None or queue.paused or (waited := facts.now - queue.oldest) <= alerts.queue_wait:
        return
    title = f"the oldest request has waited {say.age(waited)}"
    detail = f"{say.plural(queue.waiting, 'request waits', 'requests wait')}, most of them for {queue.model}"
    yield Finding((), title, detail, waited, queue.oldest + alerts.queue_wait)


def _rejecting(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    if number := facts.traffic.rejected:
        title = f"the queue refused {say.plural(number, 'request')} in 5 minutes"
        yield Finding((), title, f"{facts.queue.waiting} of {facts.queue.capacity} places are taken", float(number))


def _paused(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    queue = facts.queue
    if queue.paused:
        by = f"by {queue.paused_by}" if queue.paused_by else ""
        yield Finding((), "the queue is paused: everybody waits", by, 1.0, queue.paused_since)


def _pair(pair: Pair) -> Subject:
    return ("server", str(pair.server)), ("model", str(pair.model))


def _breaker_open(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for breaker in facts.breakers:
        pair = breaker.pair
        detail = "forced by an operator" if breaker.forced else "the model keeps failing on this server"
        title = f"the breaker of {pair.model} on {pair.server} does not close"
        yield Finding(_pair(pair), title, detail, 1.0, breaker.since)


def _flapping(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for pair, number in facts.traffic.flaps.items():
        if number > alerts.breaker_flaps:
            title = f"the breaker of {pair.model} on {pair.server} flaps"
            yield Finding(_pair(pair), title, f"{number} changes in 30 minutes", float(number))


def _thrash(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for pair, number in facts.traffic.loads.items():
        if number > alerts.thrash_loads:
            title = f"{pair.model} is loaded again and again on {pair.server}"
            yield Finding(_pair(pair), title, f"{number} loads in 30 minutes", float(number))


def _cpu(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    yield from _used("the CPU", None if facts.host is None else facts.host.cpu_percent, alerts.cpu)


def _memory(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    yield from _used("the memory", None if facts.host is None else facts.host.memory_percent, alerts.memory)


def _disk(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    yield from _used("the disk", None if facts.host is None else facts.host.disk_percent, alerts.disk)


def _used(what: str, percent: float | None, limit: float) -> Iterator[Finding]:
    if percent is not None and percent / 100 > limit:
        title = f"{say.percent(percent / 100)} of {what} of the fleet's machine is in use"
        yield Finding((), title, "", percent / 100)


def _vram(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    for gpu in () if facts.host is None else facts.host.gpus:
        if gpu.memory_used is not None and gpu.memory_total and gpu.memory_used / gpu.memory_total > alerts.vram:
            share = gpu.memory_used / gpu.memory_total
            detail = f"{say.size(gpu.memory_used)} of {say.size(gpu.memory_total)}"
            title = f"{say.percent(share)} of the memory of GPU {gpu.id} is in use"
            yield Finding((("gpu", gpu.id),), title, detail, share)


def _reload(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    if facts.reload is not None:
        yield Finding((), "the configuration file cannot be used", facts.reload.text, 0.0, facts.reload.since)


def _store(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    if facts.store is not None:
        yield Finding((), "what changes is not kept on disk", facts.store.text, 0.0, facts.store.since)


def _dropped(facts: Facts, alerts: AlertsSection) -> Iterator[Finding]:
    if facts.dropped is not None:
        number = facts.dropped.number
        title = f"{say.plural(number, 'request')} left out of the statistics"
        yield Finding((), title, "they were served all the same", float(number), facts.dropped.since)


CONDITIONS: Final[Mapping[str, Condition]] = {
    "FleetNoServers": _no_servers,
    "FleetManyServersDown": _many_down,
    "FleetServerDown": _server_down,
    "FleetModelUnservable": _unservable,
    "FleetDrainStuck": _drain_stuck,
    "FleetErrorBudgetBurnFast": _burn_fast,
    "FleetErrorBudgetBurnSlow": _burn_slow,
    "FleetTTFTHigh": _first_token,
    "FleetServerSlow": _server_slow,
    "FleetStreamStalls": _stalls,
    "FleetQueueBacklog": _backlog,
    "FleetQueueRejecting": _rejecting,
    "FleetQueuePaused": _paused,
    "FleetBreakerOpen": _breaker_open,
    "FleetBreakerFlapping": _flapping,
    "FleetThrash": _thrash,
    "FleetCPUHigh": _cpu,
    "FleetMemoryHigh": _memory,
    "FleetDiskFull": _disk,
    "FleetVRAMNearFull": _vram,
    "FleetConfigReloadFailed": _reload,
    "FleetStoreDegraded": _store,
    "FleetHistoryDropped": _dropped,
}
"""By the name of the rule (`fleet.observability.alerting.rules.IN_APP`)."""
