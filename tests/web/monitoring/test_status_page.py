"""The status page as a text: what it says, that nothing from outside becomes markup, that it can be read."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.observability.ai_status import AiStatus
from fleet.observability.alerting.alert import Alert
from fleet.observability.dashboard.snapshot import FleetSnapshot
from fleet.observability.health_summary.summary import HealthSummary, Level
from web.monitoring.status_page import LOOKS, MOST_ROWS, View, page, title
from web.monitoring.status_style import DARK, LIGHT, Scheme, stylesheet

NOW = 1_700_000_000.0


def server(state: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "state": state,
        "why": "answers probes",
        "since": NOW - 194,
        "inflight": 1,
        "slots": 4,
        "queue": 0,
        "tps": 61.3,
        "ttft": 0.8,
        **more,
    }


def state(servers: dict[str, dict[str, Any]], **fleet: Any) -> FleetSnapshot:
    known = {"rps": 41.2, "err": 0.012, "ttft_p95": 0.92, "breakers_open": 1, "paused": None, **fleet}
    metrics = {"active_requests": 290, "queue_size": 11, "tokens_per_second": 8921.0}
    return FleetSnapshot("t", metrics, "healthy", known, servers, (), {})


def verdict(level: Level = Level.CRIT, **more: Any) -> HealthSummary:
    told = {"headline": "1 server down: gpu-042", "plain": "1 server down", "since": NOW - 194, **more}
    return HealthSummary(level, "server_down", subjects=("server:gpu-042",), **told)


def alert(number: int = 1, **more: Any) -> Alert:
    fields: dict[str, Any] = {"rule": "R", "severity": "critical", "title": "gpu-042 is down", **more}
    return Alert(id=f"a-{number}", seq=number, state="firing", since=NOW - 60, fired=NOW, **fields)


def view(**more: Any) -> View:
    given = {"state": state({"gpu-042": server("crit", why="connect refused"), "gpu-001": server()}), **more}
    return View(**{"verdict": verdict(), "now": NOW, "version": "1.0", **given})


class Seen(HTMLParser):
    """Tags (with attributes) and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_verdict_comes_first_with_its_age() -> None:
    html = page(view())
    assert '<h1 class="crit">■ Critical: 1 server down: gpu-042 <small>for 3m 14s</small></h1>' in html
    assert html.index("<h1") < html.index("<dl") < html.index("<table")


def test_seven_tiles() -> None:
    html = page(view())
    tiles = [part.partition("</dd>")[0] for part in html.split("<dd>")[1:]]
    assert tiles == ["41 req/s", "1.2%", "920 ms", "8.9k tok/s", "290", "11", "1"]


def test_a_queue_is_shown_once_and_not_for_every_server_that_could_take_it() -> None:
    many = {f"gpu-{number}": server(queue=11) for number in range(5)}
    seen = Seen(page(view(state=state(many))))
    assert seen.text.count("11") == 1
    assert "Queued" in seen.text


def test_every_figure_of_a_window_says_which() -> None:
    said = [part.partition('<dd class="quiet">')[2].partition("</dd>")[0] for part in page(view()).split("<dt>")[1:5]]
    assert said == ["last minute", "last minute", "last 5 minutes", "last minute"]


def test_what_is_not_known_is_a_dash() -> None:
    quiet = state({"a": server(tps=None, ttft=None, since=None)}, rps=0.0, err=None, ttft_p95=None)
    html = page(view(state=quiet))
    assert "<dt>Errors</dt><dd>—</dd>" in html
    assert "<dt>Requests</dt><dd>0 req/s</dd>" in html
    assert html.count("—") == 5
    assert "No request has ended in the last minute." in html


@pytest.mark.parametrize(("tps", "shown"), [(0.3, "0.3"), (4.2, "4.2"), (61.3, "61"), (8921.0, "8.9k"), (None, "—")])
def test_slow_is_not_nothing(tps: float | None, shown: str) -> None:
    html = page(view(state=state({"a": server(tps=tps)})))
    assert f'data-head="tok/s">{shown}</td>' in html


def test_the_worst_servers_come_first() -> None:
    names = ("ok", "maintenance", "drained", "crit", "draining", "unknown", "warn")
    html = page(view(state=state({f"is-{name}": server(name) for name in names})))
    found = [part.partition("<")[0] for part in html.split('<td data-head="Server">')[1:]]
    assert found == ["is-crit", "is-warn", "is-unknown", "is-draining", "is-drained", "is-maintenance", "is-ok"]
    assert all(f"{look.glyph} {look.word}" in html for look in LOOKS.values())
    assert len({(look.glyph, look.word) for look in LOOKS.values()}) == len(LOOKS), "none looks like another"


def test_of_a_thousand_servers_two_hundred_are_shown() -> None:
    html = page(view(state=state({f"gpu-{number:04}": server() for number in range(1000)} | {"bad": server("crit")})))
    assert html.count('<td data-head="Server">') == MOST_ROWS
    assert "bad" in html
    assert "801 more servers, none of them in a worse state, are not shown." in html


def test_alerts_and_the_text_are_there() -> None:
    text = AiStatus("Load moved to 9 others.", "warn", "model", "tiny", NOW - 5)
    html = page(view(alerts=[alert(1), alert(2, severity="warning"), alert(3, severity="info")], text=text))
    assert "■ critical" in html
    assert "▲ warning" in html
    assert "Summary (tiny, 5 s old)" in html
    assert "<title>■2 · fleet</title>" in html


def test_notes_of_a_paused_queue_and_of_a_shutdown() -> None:
    html = page(view(state=state({"a": server()}, paused=NOW - 61), draining=True))
    assert "The queue is paused for 1m 01s" in html
    assert "shutting down" in html


def test_without_servers_it_says_what_to_do() -> None:
    html = page(view(state=state({}), urls=["http://127.0.0.1:11435"]))
    assert "curl http://127.0.0.1:11435/api/orchestrator/servers/add" in html
    assert "{&#34;" not in html
    assert '-d \'{"id": "gpu-1"' in html
    assert "<table" not in html


def test_without_a_key_it_is_one_sentence_without_names() -> None:
    seen = View(verdict(), NOW, "1.0", alerts=[alert()], urls=["http://10.1.2.3:1"])
    html = page(seen)
    assert "1 server down" in html
    assert "Show an API key" in html
    assert not any(secret in html for secret in ("gpu-042", "10.1.2.3", "<table", "<dl"))
    assert title(seen) == "■ · fleet"


@pytest.mark.parametrize(("refresh", "link"), [(10, "?refresh=0"), (0, "?refresh=10")])
def test_reloading_can_be_stopped(refresh: int, link: str) -> None:
    html = page(view(refresh=refresh))
    assert ('http-equiv="refresh"' in html) is bool(refresh)
    assert f'href="{link}"' in html


MARKUP = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        (
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "' onmouseover='x",
            "</title><script>",
            "</td></table><h1>",
            "{style}{0}{url}",
            "&lt;b&gt;",
            "<!--",
            "]]>",
            "\x00<svg/onload=x>",
        )
    ),
)
PLAIN = Seen(page(view(alerts=[alert()], text=AiStatus("x", "ok", "rules", None, NOW))))


@settings(max_examples=60, deadline=None)
@given(name=MARKUP, why=MARKUP, words=MARKUP)
def test_nothing_from_outside_becomes_markup(name: str, why: str, words: str) -> None:
    given = view(
        verdict=verdict(headline=words),
        state=state({f"{name}!": server("crit", why=why), "gpu-001": server()}),
        alerts=[alert(title=words, detail=why)],
        text=AiStatus(words or "x", "ok", "model", name, NOW),
        urls=[],
    )
    seen = Seen(page(given))
    assert seen.tags == PLAIN.tags
    assert seen.names == PLAIN.names


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_can_be_read_on_its_ground(scheme: Scheme) -> None:
    grounds = (scheme.page, scheme.card)
    pairs = [(text, ground) for text in (scheme.text, scheme.quiet, scheme.link) for ground in grounds]
    pairs += [(pair.text, pair.ground) for pair in scheme.states.values()]
    low = {pair: contrast(*pair) for pair in pairs if contrast(*pair) < 4.5}
    assert not low


def test_the_stylesheet_has_a_rule_for_every_look_and_asks_nobody_for_anything() -> None:
    css = stylesheet()
    used = {look.style for look in LOOKS.values()} | {level.value for level in Level}
    assert all(f".{style}{{" in css for style in used)
    assert "url(" not in css
    assert "@import" not in css
    assert css.count("{") == css.count("}")
