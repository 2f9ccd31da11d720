"""What went wrong once in the admin API."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
import trio

from actors.state.messages import BanPair
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.times import iso, milliseconds
from tests.web.admin.contract.here import logs, running
from web.admin.route_table import entries
from web.security.api_key_auth import is_open

__all__ = ["logs"]


async def test_the_reason_of_a_drain_is_still_told_when_the_server_is_drained(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.ask("POST", "/servers/a/drain", {"reason": "new disk"})
        shown = (await here.ask("GET", "/servers/a"))["server"]["admin"]
        assert (shown["state"], shown["why"], shown["by"]) == ("drained", "new disk", "anonymous")


async def test_the_schemas_bounds_refuse_what_the_configuration_refuses(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        schema = (await here.ask("GET", "/config/schema"))["schema"]
        described = (await here.raw("GET", "/openapi.json")).json()["components"]["schemas"]
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid({"port": 5100, "circuitBreaker": {"errorRateThreshold": 0.3}})
        assert not validator.is_valid({"port": 99_999})
        assert not validator.is_valid({"circuitBreaker": {"errorRateThreshold": 1.5}})
        assert not jsonschema.Draft202012Validator(described["NewBan"]).is_valid(
            {"serverId": "a", "model": "x", "durationMs": 0}
        )


def test_what_is_described_as_open_is_what_needs_no_key() -> None:
    """The probes were described as needing a key."""
    for entry in entries():
        assert entry.open is is_open(entry.method, entry.path), entry


async def test_a_misspelt_yes_or_no_does_not_cut_requests_off(tmp_path: Path) -> None:
    async with running(tmp_path) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.talk, 1, "llama3:8b", 100)
        with trio.fail_after(20):
            while not here.fleet.system.in_flight:
                await trio.sleep(0.01)
        for server in "ab":
            await here.ask("DELETE", f"/servers/{server}?force=flase", status=400)


async def test_what_is_no_model_name_lifts_no_ban_of_requests_without_a_model(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        system = here.fleet.system
        system.scheduler.mailbox.cast(BanPair(Pair(ServerId("a"), ModelName("")), "lies", trio.current_time() + 60.0))
        for path in ("/bans/model/no%20name", "/bans/model/me%252Fdeep"):
            assert (await here.ask("DELETE", path))["removed"] == 0
        assert (await here.ask("DELETE", "/bans/a/no%20name"))["removed"] == 0
        assert (await here.ask("GET", "/bans"))["count"] == 1


@pytest.mark.parametrize("seconds", [1795322817.4479, 1795322817.4475, 1795322817.9999, 0.0])
def test_one_moment_is_the_same_millisecond_in_iso_and_in_epoch(seconds: float) -> None:
    shown = iso(seconds)
    assert shown is not None
    assert round(datetime.fromisoformat(shown).timestamp() * 1000) == milliseconds(seconds)
