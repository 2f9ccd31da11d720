"""A real Prometheus scrapes a running fleet, and what it then says is what the clients and the servers have seen."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from fleet.common.ids import ServerId
from fleet.observability.alerting.rules import RULES
from fleet.observability.grafana.dashboards import files
from fleet.observability.metrics.definitions import METRICS, Metric
from fleet.observability.prometheus.rule_files import recordings
from tests.fleet.observability.grafana.test_dashboards import expressions, plain
from tests.kit.clients.prometheus import Prometheus, prometheus
from tests.kit.fleets.served import Served, served
from tests.kit.suite import tools

KEY = "a-key-of-mine"
LIMIT = 2
SILENT = (
    "fleet_breaker_state",
    "changes(fleet_",
    "fleet_host_gpu",
    "ollama_proxy_power",
    "fleet_server_drain",
    "fleet_alerts_firing",
    'status=~"3.."',
    "> 0",
    "fleet_prediction_error_ratio",  # only a policy that plans predicts
)
"""What these fleets do not have: nothing is shown of it, and nothing need be."""


@dataclass
class Sent:
    """What the clients sent and got."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By model and status."""
    tokens: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    limited: int = 0


async def load(fleet: Served) -> Sent:
    """A known crowd: chats, streams, embeddings, failures of every sort; some clients leave, some ask too often."""
    sent = Sent()
    async with _client(fleet.orchestrator_url) as client:
        fleet.sims["a"].host.faults.set("reset-before-headers,times=1")
        async with trio.open_nursery() as crowd:
            for _ in range(7):
                crowd.start_soon(_ask, client, sent, "llama3:8b", False)
            for _ in range(5):
                crowd.start_soon(_ask, client, sent, "tiny:latest", True)
            for _ in range(3):
                crowd.start_soon(_ask, client, sent, "nobody-has-this", True)
        for sim in fleet.sims.values():
            sim.host.faults.set("status:500:as you wish")
        for _ in range(2):
            await _ask(client, sent, "tiny:latest", False)
        for sim in fleet.sims.values():
            sim.host.faults.set()
        await _leave(client, sent)
    async with _client(fleet.url) as client:
        for _ in range(LIMIT + 3):
            await _ask(client, sent, "llama3:8b", False)
    await fleet.until_idle()
    await fleet.until_noted(sent.ends.total() + sent.limited)
    for name in fleet.sims:
        await fleet.system.probe(ServerId(name), 5.0)  # it shows what was loaded
    return sent


def _client(url: str) -> httpx.AsyncClient:
    shown = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=shown, trust_env=False, timeout=20)


async def _ask(client: httpx.AsyncClient, sent: Sent, model: str, stream: bool) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    answer = await client.post("/api/chat", json=body)
    if answer.status_code == 429:
        sent.limited += 1
        return
    sent.ends[_label(model), str(answer.status_code)] += 1
    if answer.status_code == 200:
        sent.tokens[model] += json.loads(answer.text.splitlines()[-1])["eval_count"]
        sent.streams[model] += stream


async def _leave(client: httpx.AsyncClient, sent: Sent) -> None:
    """A client that goes away after the first token."""
    body = {"model": "llama3:8b", "prompt": "hi", "options": {"num_predict": 100_000}}
    async with client.stream("POST", "/api/generate", json=body) as answer:
        await anext(answer.aiter_lines())
    sent.ends["llama3:8b", "499"] += 1
    sent.streams["llama3:8b"] += 1


def _label(model: str) -> str:
    return "other" if model == "nobody-has-this" else model


async def scraped_since(watch: Prometheus, moment: float) -> None:
    """Wait until Prometheus has seen the fleet as it was at a moment (epoch seconds), often enough for rates.

    From then on questions are about the last of these scrapes.
    """
    watch.moment = None
    often, last = "count_over_time(fleet_in_flight[1m]) >= 3", "timestamp(fleet_in_flight)"
    with trio.fail_after(60):
        while (seen := await watch.number(f"{last} and {often}") or 0) <= moment + 1:  # figures may be a second old
            await trio.sleep(0.05)
        while await _unjudged(watch):
            await trio.sleep(0.05)
    watch.moment = seen


async def _unjudged(watch: Prometheus) -> list[str]:
    groups = (await watch.get("rules"))["groups"]
    return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "unknown"]


def tried_again(fleet: Served, sent: Sent) -> int:
    """Attempts after which another server was asked: those that a server reset, and refusals that no client got.

    Of two servers that refuse a request alike, the second is the witness, and the first one's answer is passed on.
    """
    statuses = [seen.status for sim in fleet.sims.values() for seen in sim.host.requests]
    told = sum(count for (_, status), count in sent.ends.items() if status == "500")
    return statuses.count(None) + statuses.count(500) - told


def asked(fleet: Served) -> dict[tuple[str, ...], float]:
    """Inference requests that each server saw."""
    paths = ("/api/chat", "/api/generate")
    counts = {(name,): float(sum(seen.path in paths for seen in sim.host.requests)) for name, sim in fleet.sims.items()}
    return {name: count for name, count in counts.items() if count}


@tools.needs("promtool")
async def test_promtool_has_nothing_against_what_is_scraped() -> None:
    async with served("a") as fleet, fleet.client() as client:
        for model in ("tiny", "nobody-has-this"):
            await client.post("/api/generate", json={"model": model, "prompt": "hi"})
        await fleet.until_noted(2)
        async with httpx.AsyncClient(base_url=fleet.metrics_url, trust_env=False, timeout=10) as scraper:
            text = (await scraper.get("/metrics")).text
    assert (
        'ollama_proxy_requests_total{endpoint="/api/generate",method="POST",model="tiny:latest",status="200"} 1' in text
    )
    checked = tools.run("promtool", "check", "metrics", stdin=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@tools.needs("promtool")
def test_promtool_has_nothing_against_any_name_of_the_table() -> None:
    text = "".join(_lines(metric) for metric in METRICS)
    checked = tools.run("promtool", "check", "metrics", stdin=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def _lines(metric: Metric) -> str:
    """One series of it, as text."""
    labels = ",".join(f'{label}="x"' for label in metric.labels)
    kind = "gauge" if metric.kind == "info" else metric.kind  # the text format has no infos
    said = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {kind}\n"
    if kind != "histogram":
        return f"{said}{metric.name}{{{labels}}} 1\n"
    bucket = ",".join(filter(None, (labels, 'le="+Inf"')))
    counts = "".join(f"{metric.name}_{part}{{{labels}}} 1\n" for part in ("sum", "count"))
    return f"{said}{metric.name}_bucket{{{bucket}}} 1\n{counts}"


@pytest.mark.slow
@tools.needs("prometheus")
async def test_prometheus_says_what_clients_and_servers_have_seen(tmp_path: Path) -> None:
    limits: dict[str, Any] = {
        "monitoring": {"rate_limit_per_minute": LIMIT},
        "security": {"api_keys": [KEY], "rate_limiting": {"enabled": True, "requests_per_minute": 1000}},
    }
    async with served("a", "b", **limits) as fleet, prometheus(tmp_path, fleet.metrics_url, KEY) as watch:
        sent = await load(fleet)  # Prometheus looks for its targets only five seconds after its start
        await scraped_since(watch, time.time() + 1.0)  # figures may be a second old
        await _compare(watch, sent, fleet)
        await _rules_work(watch)
        await _dashboards_work(watch)
    assert not (tmp_path / "log").read_text()


async def _compare(watch: Prometheus, sent: Sent, fleet: Served) -> None:
    assert await watch.table("up", "job") == {("fleet",): 1}
    ended = Counter[tuple[str, ...]]()
    for (model, _), count in sent.ends.items():
        ended[model,] += count
    named = 'model!=""'  # without a model: what no model worked on, such as the refusals of a rate limit
    by_status = await watch.table("sum by (model, status) (ollama_proxy_requests_total)", "model", "status")
    assert by_status == sent.ends | Counter({("", "429"): sent.limited})
    duration = "ollama_proxy_request_duration_seconds"
    assert await watch.table(f"sum by (model) ({duration}_count{{{named}}})", "model") == ended
    assert await watch.table(f'sum by (model) ({duration}_bucket{{le="+Inf",{named}}})', "model") == ended
    assert await watch.table("sum by (model) (fleet_requests_total)", "model") == ended
    outcomes = await watch.table("sum by (outcome) (fleet_requests_total)", "outcome")
    statuses = Counter[str]()
    for (_, status), count in sent.ends.items():
        statuses[status] += count
    words = {"completed": "200", "client_left": "499", "model_not_found": "404", "refused_500": "500"}
    assert outcomes == {(word,): statuses[status] for word, status in words.items()}
    assert await watch.table("sum by (server) (fleet_attempts_total)", "server") == asked(fleet)
    assert (await watch.number("sum(fleet_failovers_total)") or 0) == tried_again(fleet, sent) == 3
    tokens = await watch.table("sum by (model) (fleet_output_tokens_total)", "model")
    assert {model: count for (model,), count in tokens.items() if count} == sent.tokens
    first = await watch.table("fleet_time_to_first_token_seconds_count", "model")
    assert {model: count for (model,), count in first.items() if count} == +sent.streams
    assert await watch.number("sum(fleet_streams_total)") == sent.streams.total()
    assert await watch.number("sum(fleet_rate_limited_total)") == sent.limited == 3
    assert await watch.number("fleet_in_flight") == 0
    assert await watch.table("fleet_server_up == 1", "server") == {("a",): 1, ("b",): 1}


async def _rules_work(watch: Prometheus) -> None:
    """All are there, and none fails when it is evaluated."""
    found = [rule for group in (await watch.get("rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {*(name for name, _ in recordings()), *(rule.name for rule in RULES)}
    assert {rule["health"] for rule in found} == {"ok"}, [rule.get("lastError") for rule in found]


async def _dashboards_work(watch: Prometheus) -> None:
    """Each panel's expressions can be answered, and show something unless this fleet has nothing of the kind."""
    texts = {plain(expr) for text in files().values() for expr in expressions(json.loads(text))}
    unexpected = {expr for expr in texts if not any(name in expr for name in SILENT)}
    with trio.move_on_after(60):  # a rate needs two scrapes, and some rules the results of others
        while unexpected:
            unexpected = {expr for expr in unexpected if not await watch.ask(expr)}
            if unexpected:
                await scraped_since(watch, time.time())
    assert not unexpected
