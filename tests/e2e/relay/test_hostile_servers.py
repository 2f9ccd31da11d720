"""Servers that do to a probe what no server should: nobody else notices."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from tests.e2e.raw_upstream import in_front_of_raw

FLOODS = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000,
    "a body": b"HTTP/1.1 200 OK\r\n\r\n" + b"[]," * 20_000,
    "fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000,
}


@pytest.mark.parametrize("what", FLOODS)
async def test_the_fleet_answers_while_a_probed_server_floods_it(what: str) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.flood = FLOODS[what]
        async with fleet.client() as client, trio.open_nursery() as nursery:

            async def probe() -> None:
                while True:
                    await fleet.system.probe(ServerId("raw"), 5.0)

            nursery.start_soon(probe)
            for _ in range(20):
                with trio.fail_after(1.0):  # it was 3.6 s
                    answer = await client.get("/health")
                assert answer.status_code in (200, 503)
            while fleet.system.servers[ServerId("raw")].state.health.value != "unhealthy":
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
async def test_a_row_too_deep_to_be_written_costs_neither_the_probe_nor_the_list(path: str) -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    async with in_front_of_raw() as (fleet, upstream):
        rows = [{"name": "m:latest", "extra": deep, "details": {"family": "llama"}}, {"name": "n:latest"}]
        upstream.known |= {path: {"models": rows}}
        await fleet.system.probe(ServerId("raw"), 5.0)
        assert fleet.system.servers[ServerId("raw")].state.health.value == "healthy"
        async with fleet.client() as client:
            listed = (await client.get(path)).json()["models"]
        assert {row["name"]: row.get("details") for row in listed} == {
            "m:latest": {"family": "llama"},
            "n:latest": None,
        }
