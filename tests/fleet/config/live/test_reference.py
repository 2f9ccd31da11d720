"""The shipped config.yml and the reference page say what the code does."""

from __future__ import annotations

import re

import pytest

from fleet.config import Config, ServerSpec, load, refreshed, unsafe_listener
from fleet.config.schema.introspection import leaves
from tests.kit.places import ROOT

SHIPPED = (ROOT / "config.yml").read_text(encoding="utf-8")
SECRETS = {"SECOND_API_KEY": "12345678", "ALERT_SECRET": "87654321"}
RENEW = (
    'python -c "from pathlib import Path; from fleet.config import refreshed; '
    "p = Path('docs/configuration.md'); p.write_text(refreshed(p.read_text('utf-8')), 'utf-8')\""
)


def test_the_shipped_file_is_the_defaults_and_one_local_server() -> None:
    config = load(SHIPPED, {}, {}, source="config.yml").config
    local = ServerSpec.model_validate({"id": "local", "url": "http://127.0.0.1:11434", "max_concurrency": "auto"})
    assert config == Config(servers=(local,))
    assert unsafe_listener(config) is None


def test_the_shipped_file_shows_every_key() -> None:
    everything = re.sub(r"(?m)^( *)#(?=\S)", r"\1", SHIPPED)
    found = load(everything, SECRETS, {}, source="config.yml")
    assert [spec.id for spec in found.config.servers] == ["local", "second"]
    # A server's optional keys are shown on one server or the other.
    missing = {path for path, origin in found.origins.items() if origin == "default"}
    assert missing == {"servers.0.api_key", "servers.1.priority"}


def test_values_behind_a_hash_are_defaults_too() -> None:
    everything = re.sub(r"(?m)^( *)#(?=\S)", r"\1", SHIPPED)
    found = load(everything, SECRETS, {}, source="config.yml").config
    defaults = {path: value for path, value, _ in leaves(Config())}
    differing = {path for path, value, _ in leaves(found) if path in defaults and value != defaults[path]}
    assert differing == {
        "alerts.webhook.secret",
        "server.request_timeout",
        "security.require_api_key",
        "placement.builder",
        "monitoring.max_concurrent_requests",
        "monitoring.max_queue_size",
    }


def test_a_page_without_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="marks"):
        refreshed("# Mine")


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert refreshed(page) == page, f"renew it with: {RENEW}"
    for path, _, _ in leaves(Config()):
        assert f"| `{path.rpartition('.')[2]}` |" in page or path in ("servers", "security.keys")
