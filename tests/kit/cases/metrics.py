"""The metrics of a running fleet, as plain dicts."""

from __future__ import annotations

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from actors.observability.metrics_gauges import snapshot
from actors.system import System

Series = dict[tuple[str, ...], float]


def figures(system: System) -> Series:
    """The snapshot by name and labels, without the histograms."""
    system.statistics.request_log.flush()
    families = snapshot(system, "1.0", "3.13")
    return {(family.metric.name, *labels): value for family in families for labels, value in family.points}


def noted(system: System) -> int:
    """How many requests to Ollama's routes have been counted so far."""
    return int(sum(value for key, value in figures(system).items() if key[0] == "ollama_proxy_requests_total"))


async def scraped(url: str, requests: int = 0) -> dict[str, float]:
    """What a scrape reads: by name and, behind it, the labels in alphabetical order as `name{a=b,c=d}`.

    Figures may be a second old: scrapes again until so many requests to Ollama's routes are in them, at most 20 s.
    """
    with trio.fail_after(60):
        while True:
            found = await _scrape(url)
            if sum(value for key, value in found.items() if key.startswith("ollama_proxy_requests_total")) >= requests:
                return found
            await trio.sleep(0.05)


async def _scrape(url: str) -> dict[str, float]:
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        answer = await client.get(f"{url}/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
