"""A request may not point the webhook or the traces to where clouds hand out credentials, behind a name either."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.actors.config.test_backend_url_check import Names
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import served


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    resolver = Names(evil=["10.0.0.1", "169.254.169.254"], good=["10.0.0.1"])
    before = trio.socket.set_custom_hostname_resolver(resolver)
    yield resolver
    trio.socket.set_custom_hostname_resolver(before)


def body(path: str, url: str) -> dict[str, Any]:
    return {"alerts": {"webhook": {"url": url}}} if path.startswith("alerts") else {"otel": {"endpoint": url}}


@pytest.mark.parametrize("path", ["alerts.webhook.url", "otel.endpoint"])
async def test_a_request_is_refused_by_what_is_written_and_by_where_the_name_leads(path: str, names: Names) -> None:
    async with served("a") as here:
        for url in ("http://169.254.169.254/x", "http://metadata.google.internal", "http://evil/x", "http://[::1"):
            for dry in ("false", "true"):
                found = await ask(here, "POST", f"/config?dry_run={dry}", body(path, url), status=400)
                assert [each["path"] for each in found["problems"]] == [path]
        before = here.system.config
        found = await ask(here, "POST", "/config", body(path, "http://good:4318/x"))
        assert [each["path"] for each in found["changed"]] == [path]
        assert before is not here.system.config or path == "otel.endpoint"  # which waits for a restart


def test_traces_are_not_sent_to_a_name_that_leads_there_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from actors.observability.otlp_exporter import OtlpExporter

    exporter = OtlpExporter("http://collector.example:4318", "test")
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 4318))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: [row])
    assert "credentials" in exporter.send([])
    exporter.close()
