"""The metrics of a running fleet, as plain dicts."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from actors.metering_gauges import snapshot
from actors.system import System

Series = dict[tuple[str, ...], float]


def figures(system: System) -> Series:
    """The snapshot by name and labels, without the histograms."""
    system.fleet.recorder.flush()
    families = snapshot(system, "1.0", "3.13")
    return {(family.metric.name, *labels): value for family in families for labels, value in family.points}


async def scraped(url: str) -> dict[str, float]:
    """What a scrape reads: by name and, behind it, the labels in alphabetical order as `name{a=b,c=d}`."""
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        answer = await client.get(f"{url}/metrics")
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
