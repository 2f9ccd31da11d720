"""The rules: when the fleet complains. One table for the alerts in the app, Prometheus' file of rules, and the docs.

What a rule looks at inside the app is in `alerting.conditions`, by the rule's name; what Prometheus looks at is its
`promql`. Both say the same of the same fleet, as near as what they see allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from fleet.config.schema.observability import AlertsSection
from fleet.observability.alerting import promql as query

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Seconds: the condition must hold for `hold` before the alert fires, and be gone for `keep_firing`.

    `summary` is a static sentence; `description` is Prometheus' template; `meaning` and `remedy` are the runbook's.
    `labels` are those of an alert, hence what its subject is. `setting` is the key of `alerts` that is its threshold
    (times `factor`), `fixed` the threshold of a rule that has no key. `in_app`: the app evaluates it too.
    """

    name: str
    severity: Severity
    hold: float
    summary: str
    description: str
    promql: Callable[[AlertsSection], str]
    meaning: str
    remedy: str
    keep_firing: float = 60.0
    labels: tuple[str, ...] = ()
    setting: str = ""
    factor: float = 1.0
    fixed: float = 0.0
    in_app: bool = True
    actions: tuple[str, ...] = ()

    def threshold(self, alerts: AlertsSection) -> float:
        """What the value is held against, with the operator's settings."""
        return float(getattr(alerts, self.setting)) * self.factor if self.setting else self.fixed


AVAILABILITY: Final = (
    Rule(
        "FleetDown",
        "critical",
        120,
        "The fleet does not answer.",
        "No fleet has answered Prometheus for two minutes.",
        query.fleet_down,
        "Prometheus cannot scrape any target of the job fleet, so probably nobody is served.",
        "See whether the process runs (systemctl status fleet, its log) and Prometheus reaches the metrics port.",
        in_app=False,
    ),
    Rule(
        "FleetNoServers",
        "critical",
        60,
        "No server can be used.",
        "None of the servers of {{ $labels.instance }} is both healthy and in service.",
        query.no_servers,
        "Every server is down or was taken out of service, so every request waits and then fails.",
        "See which servers are down and why (GET /api/orchestrator/servers), start one or put one back into service.",
        labels=(),
        actions=("test",),
    ),
    Rule(
        "FleetManyServersDown",
        "critical",
        120,
        "Many servers are down.",
        "{{ $value | humanizePercentage }} of the servers in service of {{ $labels.instance }} are down.",
        query.many_down,
        "So many servers at one time seldom fail by themselves: think of the network, power, or a roll-out.",
        "Look at what they have in common (rack, switch, version), and undo the last change.",
        fixed=query.MANY,
        actions=("test",),
    ),
    Rule(
        "FleetServerDown",
        "warning",
        180,
        "A server is down.",
        "{{ $labels.server }} answers no probes.",
        query.server_down,
        "The server answers no probes though it should be in service; the others do its work.",
        "Read why in its row (refused: no Ollama runs; timeout: the machine or the network). Mend it, or put it into "
        "maintenance.",
        labels=("server",),
        actions=("test", "maintenance", "remove"),
    ),
    Rule(
        "FleetModelUnservable",
        "critical",
        60,
        "A model that is asked for cannot be served.",
        "{{ $labels.model }} is asked for, and no server can be given a request for it.",
        query.model_unservable,
        "Servers have the model, but each of them is down, out of service, banned or behind an open breaker.",
        "Bring one of its servers back, reset its breaker when the cause is gone, or pull it onto another server.",
        labels=("model",),
        actions=("pull",),
    ),
    Rule(
        "FleetDrainStuck",
        "info",
        0,
        "A drain does not come to its end.",
        "{{ $labels.server }} has been draining for {{ $value | humanizeDuration }}.",
        query.drain_stuck,
        "Requests on the server do not end, so it cannot be taken away.",
        "Look at what runs there (GET /api/orchestrator/in-flight), cancel it, or end the drain.",
        labels=("server",),
        setting="drain",
        actions=("undrain", "remove"),
    ),
)
QUALITY: Final = (
    Rule(
        "FleetErrorBudgetBurnFast",
        "critical",
        120,
        "Many requests fail.",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.instance }} fail.",
        query.burn_fast,
        "So many requests fail that a month's worth of errors is used up in two days. What clients or operators "
        "brought about themselves does not count.",
        "See where and why (fleet_requests_total by server, model, outcome; the fleet's own alert names them), and "
        "take that server out of service.",
        setting="error_rate",
    ),
    Rule(
        "FleetErrorBudgetBurnSlow",
        "warning",
        900,
        "Requests fail more often than they should.",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.instance }} fail, for half an hour now.",
        query.burn_slow,
        "Fewer errors than would be an emergency, but for so long that they add up.",
        "Look for one server or one model that has most of them: the fleet's own alert names it.",
        keep_firing=300,
        setting="error_rate",
        factor=query.SLOW_SHARE,
    ),
    Rule(
        "FleetTTFTHigh",
        "warning",
        600,
        "Clients wait long for the first token.",
        "The 95th percentile of the first-token time of {{ $labels.instance }} is {{ $value | humanizeDuration }}.",
        query.first_token_high,
        "From arrival to the first token, waiting and loading included, one in twenty takes longer than that.",
        "See what they wait for: a slot (add servers), a load (warm models up) or the prompt (slow servers).",
        keep_firing=300,
        setting="first_token",
    ),
    Rule(
        "FleetServerSlow",
        "warning",
        600,
        "A server is much slower than the others.",
        '{{ $labels.server }} takes {{ $value | printf "%.1f" }} times as long to its first token as the median.',
        query.server_slow,
        "The 95th percentile of this server's first-token time is far above the median of all servers' (at least "
        "three, each with enough requests).",
        "Look for another user of its GPU, a model that has fallen back to the CPU, heat; drain it meanwhile.",
        keep_firing=300,
        labels=("server",),
        setting="slow_ratio",
        actions=("drain", "maintenance"),
    ),
    Rule(
        "FleetStreamStalls",
        "warning",
        600,
        "Streams stall.",
        "{{ $value | humanizePercentage }} of the streams of {{ $labels.instance }} fell silent and were ended.",
        query.stream_stalls,
        "Servers begin to answer and then say nothing for timeouts.idle.",
        "See which server (fleet_stream_stalls_total), look at its log and its GPU; restart Ollama there.",
        keep_firing=300,
        setting="stall_share",
    ),
)
FLOW: Final = (
    Rule(
        "FleetQueueBacklog",
        "warning",
        300,
        "Requests wait long for a slot.",
        "The oldest request in line of {{ $labels.instance }} has waited {{ $value | humanizeDuration }}.",
        query.queue_backlog,
        "More is asked for than the slots of the servers with that model can do.",
        "Add servers or slots, put the model on more servers, or let less important clients wait (priorities).",
        setting="queue_wait",
    ),
    Rule(
        "FleetQueueRejecting",
        "critical",
        120,
        "The queue refuses requests.",
        '{{ $labels.instance }} refused {{ $value | printf "%.0f" }} requests in 5 minutes because of its queue.',
        query.queue_rejecting,
        "The queue is full, or requests waited for timeouts.queue without getting a slot.",
        "As for a backlog; queue.max_size only moves the limit.",
    ),
    Rule(
        "FleetQueuePaused",
        "warning",
        900,
        "The queue is paused.",
        "The queue of {{ $labels.instance }} is paused: everybody waits.",
        query.queue_paused,
        "An operator paused the queue, and may have forgotten it.",
        "Resume it (POST /api/orchestrator/queue/resume), or silence this until the work is done.",
        fixed=1.0,
        actions=("resume",),
    ),
    Rule(
        "FleetBreakerOpen",
        "warning",
        600,
        "A circuit breaker does not close.",
        "The breaker of {{ $labels.model }} on {{ $labels.server }} is not closed.",
        query.breaker_open,
        "This model keeps failing on this server, so the server gets no requests for it.",
        "Read why it opened (GET /api/orchestrator/circuit-breakers), mend that, then reset it.",
        labels=("server", "model"),
        actions=("reset", "test"),
    ),
    Rule(
        "FleetBreakerFlapping",
        "warning",
        0,
        "A circuit breaker opens and closes again and again.",
        'The breaker of {{ $labels.model }} on {{ $labels.server }} moved {{ $value | printf "%.0f" }} times in 30m.',
        query.breaker_flapping,
        "The model works on this server now and then: often it does not fit into memory beside others.",
        "Ban the pair or unload what competes with it; look into the server's log.",
        keep_firing=300,
        labels=("server", "model"),
        setting="breaker_flaps",
        actions=("reset", "test"),
    ),
    Rule(
        "FleetThrash",
        "warning",
        0,
        "A model is loaded again and again.",
        '{{ $labels.model }} was loaded {{ $value | printf "%.0f" }} times in half an hour on {{ $labels.server }}.',
        query.thrash,
        "Models push each other out of the server's memory, and requests wait for loads.",
        "Give each model servers of its own, raise keep_alive, or let clients agree on num_ctx (else: another load).",
        keep_firing=300,
        labels=("server", "model"),
        setting="thrash_loads",
        actions=("unload",),
    ),
)
MACHINE: Final = (
    Rule(
        "FleetCPUHigh",
        "info",
        600,
        "The fleet's machine has no CPU left.",
        "{{ $value | humanizePercentage }} of the CPU of {{ $labels.instance }} is in use.",
        query.cpu,
        "The machine under the proxy is busy, which by itself harms nobody: a note. If answers suffer, others say so.",
        "Nothing, while answers are fast. Else see what uses it; move Ollama or other work to another machine.",
        setting="cpu",
    ),
    Rule(
        "FleetMemoryHigh",
        "warning",
        600,
        "The fleet's machine has no memory left.",
        "{{ $value | humanizePercentage }} of the memory of {{ $labels.instance }} is in use.",
        query.memory,
        "The kernel will end a process soon, perhaps the fleet.",
        "See what uses it; lower limits.buffered_bytes if it is the fleet.",
        setting="memory",
    ),
    Rule(
        "FleetDiskFull",
        "warning",
        600,
        "The fleet's disk is nearly full.",
        "{{ $value | humanizePercentage }} of the disk of {{ $labels.instance }} is in use.",
        query.disk,
        "The store and the logs will not be written any more.",
        "Remove what is not needed, models of a local Ollama for example.",
        setting="disk",
    ),
    Rule(
        "FleetVRAMNearFull",
        "info",
        900,
        "A GPU's memory is nearly full.",
        "{{ $value | humanizePercentage }} of the memory of GPU {{ $labels.gpu }} of {{ $labels.instance }} is in use.",
        query.vram,
        "The next model will push another one out, or run on the CPU. For a machine that serves, that is normal.",
        "Nothing, unless FleetThrash or FleetServerSlow fires too.",
        keep_firing=300,
        labels=("gpu",),
        setting="vram",
    ),
)
ITSELF: Final = (
    Rule(
        "FleetConfigReloadFailed",
        "critical",
        300,
        "The configuration file cannot be used.",
        "{{ $labels.instance }} goes on with the last good configuration: its file cannot be used.",
        query.reload_failed,
        "The file was changed into something that the fleet refuses; the next start would fail.",
        "Every problem is in the log and in GET /api/orchestrator/health; mend the file (fleet check).",
        keep_firing=0,
        actions=("reload",),
    ),
    Rule(
        "FleetStoreDegraded",
        "warning",
        60,
        "What changes is not kept on disk.",
        "The store of {{ $labels.instance }} cannot be written; bans, drains and totals would not survive a restart.",
        query.store_degraded,
        "The disk is full, gone or read-only; changes wait in memory, up to a bound.",
        "Make room or mend the disk; it is tried again by itself.",
    ),
    Rule(
        "FleetHistoryDropped",
        "info",
        0,
        "Requests are missing from the statistics.",
        '{{ $value | printf "%.0f" }} finished requests of {{ $labels.instance }} were left out of the statistics.',
        query.history_dropped,
        "More requests ended at one time than could be counted; they were served all the same.",
        "Nothing, if it was once. Else the machine is too slow for this load.",
        keep_firing=0,
    ),
    Rule(
        "FleetDashboardSlowClients",
        "info",
        600,
        "Live dashboards do not keep up.",
        'Slow dashboards of {{ $labels.instance }} missed {{ $value | printf "%.0f" }} updates in ten minutes.',
        query.slow_clients,
        "A browser or its connection is too slow for an update per second; it gets whole pictures instead.",
        "Nothing; it costs nobody else anything. A larger dashboard.interval helps.",
        fixed=query.SKIPPED,
        in_app=False,
    ),
)
RULES: Final[tuple[Rule, ...]] = (*AVAILABILITY, *QUALITY, *FLOW, *MACHINE, *ITSELF)
"""In the order of the runbook."""
BY_NAME: Final = {rule.name: rule for rule in RULES}
IN_APP: Final = tuple(rule for rule in RULES if rule.in_app)
