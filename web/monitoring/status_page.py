"""The status page: what an operator sees without a dashboard. HTML made on the server, without scripts.

Whatever comes from outside (names of servers and models, their errors) is put in by `Markup.format`, which escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from actors.observability.ai_status import AiStatus
from fleet.common.wording import NONE, age, count, duration, percent, rate
from fleet.observability.alerting.alert import Alert
from fleet.observability.dashboard.snapshot import FleetSnapshot
from fleet.observability.health_summary.summary import HealthSummary, Level
from fleet.security.roles import Identity
from web.monitoring import login_page

MOST_ROWS: Final = 200
MOST_ALERTS: Final = 50
WORDS: Final[Mapping[Level, str]] = {
    Level.OK: "Healthy",
    Level.PLANNED: "Maintenance",
    Level.UNKNOWN: "Unknown",
    Level.WARN: "Degraded",
    Level.CRIT: "Critical",
}


class _Look:
    """A server's state: the class of its colours, its glyph, its word; the worst has the lowest rank."""

    def __init__(self, rank: int, style: str, glyph: str, word: str) -> None:
        self.rank, self.style, self.glyph, self.word = rank, style, glyph, word


LOOKS: Final[Mapping[str, _Look]] = {
    "crit": _Look(0, "crit", "■", "Down"),
    "warn": _Look(1, "warn", "▲", "Degraded"),
    "unknown": _Look(2, "unknown", "○", "Unknown"),
    "draining": _Look(3, "planned", "▽", "Draining"),
    "drained": _Look(4, "planned", "▼", "Drained"),
    "maintenance": _Look(5, "planned", "◆", "Maintenance"),
    "ok": _Look(6, "ok", "●", "Healthy"),
}
_SEVERITIES: Final = {"critical": ("crit", "■"), "warning": ("warn", "▲"), "info": ("unknown", "▸")}

_PAGE: Final = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">{refresh}'
    '<title>{title}</title><link rel="stylesheet" href="status.css"></head>'
    "<body><main>{body}</main></body></html>\n"
)
_SPEAK_FOR_THEMSELVES: Final = (Level.OK, Level.UNKNOWN)
"""Levels whose headlines say the word themselves."""
_VERDICT: Final = Markup('<h1 class="{style}">{glyph} {word}{text} <small>for {age}</small></h1>')
_TILE: Final = Markup("<div><dt>{}</dt><dd>{}</dd>{}</div>")
_WINDOW: Final = Markup('<dd class="quiet">last minute</dd>')
_FIVE_MINUTES: Final = Markup('<dd class="quiet">last 5 minutes</dd>')
_ROW: Final = Markup(
    '<tr><td><span class="state {style}">{glyph} {word}</span></td><td data-head="Server">{server}</td>'
    '<td data-head="Why">{why}</td><td class="n" data-head="For">{age}</td>'
    '<td class="n" data-head="In flight">{inflight}</td>'
    '<td class="n" data-head="tok/s">{tps}</td><td class="n" data-head="TTFT">{ttft}</td></tr>'
)
_TABLE: Final = Markup(
    '<h2>Servers</h2><table><thead><tr><th>State<th>Server<th>Why<th class="n">For<th class="n">In flight'
    '<th class="n">tok/s<th class="n">TTFT</tr></thead><tbody>{}</tbody></table>{}'
)
_ALERT: Final = Markup(
    '<tr><td><span class="state {}">{} {}</span></td><td data-head="Alert">{}</td><td data-head="Detail">{}</td>'
    '<td class="n" data-head="For">{}</td></tr>'
)
_FIRST_STEPS: Final = Markup(
    "<h2>First steps</h2><ol>"
    "<li>Add a server, in <code>config.yml</code> (<code>servers:</code>) or at once:<br><code>curl {api}/servers/add"
    ' -H \'content-type: application/json\' -d \'{{"id": "gpu-1", "url": "http://localhost:11434"}}\'</code></li>'
    "<li>Give it a model: <code>OLLAMA_HOST={proxy} ollama pull llama3.2</code></li>"
    "<li>Send a test chat: <code>OLLAMA_HOST={proxy} ollama run llama3.2 hello</code></li>"
    "<li>Let Prometheus scrape <code>/metrics</code></li></ol>"
)


@dataclass(frozen=True, slots=True)
class Doors:
    """`ask`: a key would show more. `who` has logged in, and may log out."""

    ask: bool = False
    who: Identity | None = None

    @property
    def form(self) -> bool:
        """Whether to ask for a key on the page itself."""
        return self.ask and self.who is None


@dataclass(frozen=True, slots=True)
class View:
    """What is shown. `now` is epoch seconds. `state` is None for those who may see no names: then it is one sentence.

    `urls` are those of our ports, the proxy's first; `refresh` is in seconds, 0 for never.
    """

    verdict: HealthSummary
    now: float
    version: str
    refresh: int = 0
    draining: bool = False
    state: FleetSnapshot | None = None
    alerts: Sequence[Alert] = ()
    text: AiStatus | None = None
    urls: Sequence[str] = ()
    doors: Doors = Doors()
    framed: bool = False
    """Bare, as a part of another page, which cares for what this one leaves out."""


def page(view: View) -> str:
    """The whole page."""
    again = Markup("")
    if view.refresh and not view.framed:
        again = Markup('<meta http-equiv="refresh" content="{}">').format(view.refresh)
    if view.doors.form or view.doors.who is not None:
        again += login_page.TELLING
    body = _join(
        [_verdict(view), *_notes(view), *_named(view), *_door(view), *([] if view.framed else [_footer(view)])]
    )
    return str(_PAGE.format(refresh=again, title=title(view), body=body))


def title(view: View) -> str:
    """For the tab: the verdict's shape, and how many alerts fire."""
    number = len([alert for alert in view.alerts if alert.severity != "info"]) if view.state is not None else 0
    return f"{view.verdict.level.glyph}{number or ''} · fleet"


def _verdict(view: View) -> Markup:
    verdict = view.verdict
    return _VERDICT.format(
        style=verdict.level.value,
        glyph=verdict.level.glyph,
        word="" if verdict.level in _SPEAK_FOR_THEMSELVES else f"{WORDS[verdict.level]}: ",
        text=verdict.plain or WORDS[verdict.level].lower() if view.state is None else verdict.headline,
        age=age(view.now - verdict.since),
    )


def _notes(view: View) -> Iterable[Markup]:
    if view.draining:
        yield Markup('<p class="note planned">◆ The fleet is shutting down and takes no new requests.</p>')
    if view.state is not None and (paused := view.state.fleet["paused"]) is not None:
        note = Markup('<p class="note warn">▲ The queue is paused for {}: everybody waits.</p>')
        yield note.format(age(view.now - paused))


def _named(view: View) -> Iterable[Markup]:
    """All that names servers and models."""
    if (state := view.state) is None:
        return
    if view.text is not None and view.text.text:
        source = "rules" if view.text.model is None else view.text.model
        label = Markup('<p><span class="quiet">Summary ({}, {} old):</span> {}</p>')
        yield label.format(source, age(view.now - view.text.at), view.text.text)
    yield _tiles(state)
    if not state.servers:
        proxy = view.urls[0] if view.urls else "http://localhost:11435"
        yield _FIRST_STEPS.format(api=f"{proxy}/api/orchestrator", proxy=proxy)
        return
    yield from _alerts(view)
    yield _servers(view, state)


def _door(view: View) -> Iterable[Markup]:
    """Where to show a key. A page that is loaded anew would take away what is typed, so that one has a link."""
    if view.doors.form:
        link = Markup('<p><a href="login" target="_top">Log in</a></p>')
        yield link if view.refresh or view.framed else login_page.form()


def _tiles(state: FleetSnapshot) -> Markup:
    fleet, metrics = state.fleet, state.metrics
    figures = (
        ("Requests", rate(fleet["rps"], "req"), _WINDOW),
        ("Errors", percent(fleet["err"]), _WINDOW),
        ("TTFT p95", duration(fleet["ttft_p95"]), _FIVE_MINUTES),
        ("Throughput", rate(metrics["tokens_per_second"], "tok"), _WINDOW),
        ("In flight", count(metrics["active_requests"]), ""),
        ("Queued", count(metrics["queue_size"]), ""),
        ("Breakers open", count(fleet["breakers_open"]), ""),
    )
    quiet = "" if fleet["err"] is not None else Markup('<p class="quiet">No request has ended in the last minute.</p>')
    return Markup('<dl class="tiles">{}</dl>{}').format(_join(_TILE.format(*figure) for figure in figures), quiet)


def _alerts(view: View) -> Iterable[Markup]:
    if not view.alerts:
        return
    rows = _join(_alert(alert, view.now) for alert in view.alerts[:MOST_ALERTS])
    yield Markup("<h2>Alerts</h2><table><tbody>{}</tbody></table>{}").format(
        rows, _left_out(len(view.alerts) - MOST_ALERTS, "alerts")
    )


def _alert(alert: Alert, now: float) -> Markup:
    style, glyph = _SEVERITIES[alert.severity]
    return _ALERT.format(style, glyph, alert.severity, alert.title, alert.detail, age(now - alert.since))


def _servers(view: View, state: FleetSnapshot) -> Markup:
    worst = sorted(state.servers.items(), key=lambda each: (LOOKS[each[1]["state"]].rank, each[0]))
    rows = _join(_server(server, fields, view.now) for server, fields in worst[:MOST_ROWS])
    return _TABLE.format(rows, _left_out(len(worst) - MOST_ROWS, "servers, none of them in a worse state,"))


def _server(server: str, fields: Mapping[str, Any], now: float) -> Markup:
    look = LOOKS[fields["state"]]
    return _ROW.format(
        style=look.style,
        glyph=look.glyph,
        word=look.word,
        server=server,
        why=fields["why"],
        age=NONE if fields["since"] is None else age(now - fields["since"]),
        inflight=f"{fields['inflight']}/{fields['slots']}",
        tps=rate(fields["tps"], "").removesuffix(" /s"),
        ttft=duration(fields["ttft"]),
    )


def _left_out(number: int, what: str) -> Markup | str:
    return Markup('<p class="quiet">{} more {} are not shown.</p>').format(number, what) if number > 0 else ""


def _footer(view: View) -> Markup:
    """Where to go on. Relative links, for fleets under a path of a reverse proxy."""
    if view.state is None:
        more = Markup('<p>{} <a href="health">health</a></p>').format(_more(view.doors))
    else:
        more = Markup(
            '<p><a href="docs">API</a><a href="metrics">metrics</a><a href="health">health</a>'
            '<a href="api/orchestrator/alerts">alerts</a><a href="wall">for a wall display</a></p>'
        )
        if view.urls:
            more += Markup("<p>Clients connect to <code>OLLAMA_HOST={}</code></p>").format(view.urls[0])
    if view.doors.who is not None:
        more += login_page.leave(view.doors.who)
    turn = ("?refresh=0", "stop") if view.refresh else ("?refresh=10", "start")
    return Markup('<footer>{}<p>Version {}. <a href="{}">{} reloading</a></p></footer>').format(
        more, view.version, *turn
    )


def _more(doors: Doors) -> str:
    """Why there are no names."""
    if doors.who is not None:
        return "Servers and models are shown to operators and admins."
    return "Show an API key to see more."


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
