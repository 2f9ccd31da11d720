"""Pages of other origins: they change nothing in the fleet, whatever they leave out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.clients.lanes import both_lanes
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

ADMIN = "/api/orchestrator"
CHANGES = [
    ("POST", f"{ADMIN}/servers/add"),
    ("PATCH", f"{ADMIN}/servers/a"),
    ("PUT", f"{ADMIN}/config"),
    ("DELETE", f"{ADMIN}/servers/a"),
    ("POST", f"{ADMIN}/nowhere"),
    ("POST", ADMIN),
]
FOREIGN = [
    ["Origin: https://evil.example"],
    ["Origin: null"],
    ["Origin: http://localhost:1"],  # another page of this machine
    ["Origin: http://localhost.evil.example"],
    ["Origin: app://obsidian.md"],  # what Ollama allows is for models
    ["Sec-Fetch-Site: cross-site"],
    ["sec-fetch-site: Cross-Site"],
    ["Sec-Fetch-Site: same-site"],
    ["Sec-Fetch-Site: something-new"],
    ["Origin: https://evil.example", "Sec-Fetch-Site: same-origin"],
]


@pytest.mark.parametrize("fields", FOREIGN)
async def test_a_foreign_page_changes_nothing(fields: list[str]) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        for method, path in CHANGES:
            answer = await (await server.connect()).ask(method, path, b"{}", *fields)
            assert answer.status == 403, (method, path)
            assert "access-control-allow-origin" not in answer
    assert system.removed == []
    assert list(system.servers) == ["a", "b"]


OWN = [
    [],  # no browser
    ["Sec-Fetch-Site: same-origin"],
    ["Sec-Fetch-Site: none"],
    ["Origin: http://localhost"],  # the Host that the test asks for
    ["Origin: http://localhost", "Sec-Fetch-Site: same-origin"],
]


@pytest.mark.parametrize("fields", OWN)
async def test_programs_and_our_own_pages_are_let_in(fields: list[str]) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("POST", f"{ADMIN}/servers/add", b"{", *fields)
        assert answer.status == 400


async def test_reading_without_an_origin_is_left_alone() -> None:
    async with fleet(FakeSystem()) as server:  # a link from anywhere; its page cannot read the answer
        answer = await (await server.connect()).ask("GET", f"{ADMIN}/servers", b"", "Sec-Fetch-Site: cross-site")
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer


async def test_extensions_that_hide_their_origin_still_reach_models_as_with_ollama() -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", b'{"model":"m"}', "Sec-Fetch-Site: cross-site")
        assert answer.status == 200


STAR: list[tuple[dict[str, Any], int]] = [
    ({}, 403),
    ({"security": {"api_keys": ["a-secret-key"]}}, 400),
]


@pytest.mark.parametrize(("config", "status"), STAR)
async def test_all_origins_may_administer_only_where_a_key_is_needed(config: dict[str, Any], status: int) -> None:
    async with fleet(FakeSystem(cors={"origins": ["*"]}, **config)) as server:
        fields = ["Origin: https://any.example", "X-API-Key: a-secret-key"]
        wire = await server.connect()
        assert (await wire.ask("POST", f"{ADMIN}/servers/add", b"{", *fields)).status == status
        assert (await wire.ask("POST", "/api/chat", b'{"model":"m"}', *fields)).status == 200


async def test_an_origin_that_is_configured_may_administer() -> None:
    async with fleet(FakeSystem(cors={"origins": ["https://ops.example"]})) as server:
        wire = await server.connect()
        answer = await wire.ask("POST", f"{ADMIN}/servers/add", b"{", "Origin: https://ops.example")
        assert (answer.status, answer["access-control-allow-origin"]) == (400, "https://ops.example")
        preflight = await wire.ask("OPTIONS", f"{ADMIN}/servers/a", b"", "Origin: https://ops.example")
        assert preflight.status == 204


ASKING = ["Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true"]


async def test_a_preflight_names_configured_fields_and_lets_into_a_private_network() -> None:
    config: dict[str, Any] = {"cors": {"origins": ["https://good.example"], "headers": ["X-My-Header"]}}
    async with fleet(FakeSystem(**config)) as server:
        wire = await server.connect()
        asked = "Access-Control-Request-Headers: x-my-header,x-stainless-new"
        answer = await wire.ask("OPTIONS", "/api/chat", b"", "Origin: https://good.example", asked, *ASKING)
        assert answer.status == 204
        allowed = answer["access-control-allow-headers"].lower().split(",")
        assert {"x-my-header", "x-stainless-new", "api-key", "traceparent"} <= set(allowed)
        assert answer["access-control-allow-private-network"] == "true"
        answer = await wire.ask("OPTIONS", "/api/chat", b"", "Origin: https://bad.example", *ASKING)
        assert (answer.status, "access-control-allow-private-network" in answer) == (403, False)


async def test_a_refused_origin_is_told_once_with_the_setting_that_could_allow_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(FakeSystem()) as server:
        for n in range(600):
            wire = await server.connect()
            await wire.ask("POST", "/api/chat", b"{}", f"Origin: https://evil{n // 2}.example")
        await wire.ask("POST", f"{ADMIN}/servers/add", b"{}", "Origin: https://evil0.example")
    told = [each.getMessage() for each in caplog.records if each.name == "fleet.cors"]
    assert told[0] == "refused a page of https://evil0.example that wants to use the fleet: cors.origins could allow it"
    assert len(told) == len(set(told)) == 256
    assert told[-1].endswith("(further origins are not told)")
