"""The webhook and the collector of traces: what their clients cannot use, and where nothing may be sent, is refused."""

from __future__ import annotations

import random

import httpx
import pytest

from fleet.config import load
from fleet.config.schema.urls import check_receiver
from tests.fleet.config.config_kit import config, messages
from tests.kit.cases.urlreaders import made

METADATA = [
    "http://169.254.169.254/latest",
    "http://[fd00:ec2::254]/x",
    "http://metadata.google.internal/computeMetadata",
    "http://METADATA.google.internal.:80",
    "http://0xa9fea9fe/",
    "http://[::ffff:169.254.169.254]:4318",
    "http://100.100.100.200",
    "http://169.254.1.1",
]
BROKEN = [
    "http://10.0.0.256:11434",
    "http://010.0.0.5",
    "http://[::1]11434",
    "http://[::1",
    "http://[v1.x]",
    "http://xn--a/hook",
    "http://" + "l" * 64,
    "http://a:65536",
    "http://a:+80",
    "http://a:0",
    "http://",
    "http://169.254.169.254\\@127.0.0.1/",
    "http://a#x",
    "http:///x",
    "ftp://a",
    "a",
]


def keys(url: str) -> dict[str, dict[str, object]]:
    return {"alerts.webhook.url": {"alerts": {"webhook": {"url": url}}}, "otel.endpoint": {"otel": {"endpoint": url}}}


@pytest.mark.parametrize("url", [*METADATA, *BROKEN], ids=lambda url: url[:40])
def test_it_is_refused_in_the_file_and_in_the_environment_by_the_path_of_the_key(url: str) -> None:
    for path, tree in keys(url).items():
        found = messages(httpx.Request("POST", "http://x", json=tree).content.decode())
        assert set(found) == {path}
        found = messages(None, {f"FLEET_{path.replace('.', '__').upper()}": url})
        assert set(found) == {path}


@pytest.mark.parametrize(
    "url", ["http://hunter2@10.0.0.256/hunter2", "http://169.254.169.254/hunter2", "ftp://hunter2"]
)
def test_what_is_said_of_it_never_repeats_it(url: str) -> None:
    assert "hunter2" not in "".join(messages(None, {"FLEET_ALERTS__WEBHOOK__URL": url}).values())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4318", "https://hooks.example:8443/x", "http://[::1]:4318/", "http://my_box/a%20b", ""]
)
def test_what_both_can_use_is_taken(url: str) -> None:
    for tree in keys(url).values():
        load(httpx.Request("POST", "http://x", json=tree).content.decode(), {}, {}, source="f.yml")


def test_only_the_webhook_may_have_a_user_and_a_query() -> None:
    url = "https://user:p%40ss@hooks.example/x?token=y"
    config(None, {"FLEET_ALERTS__WEBHOOK__URL": url})
    assert "query" in messages(None, {"FLEET_OTEL__ENDPOINT": url})["otel.endpoint"]
    assert "query" in messages(None, {"FLEET_OTEL__ENDPOINT": "http://a?"})["otel.endpoint"]


def test_the_rules_for_servers_addresses_hold_for_receivers_but_collectors_may_be_private() -> None:
    private = "security: {backends: {allow_private: false}}"
    assert "private" in messages(private, {"FLEET_ALERTS__WEBHOOK__URL": "http://10.0.0.1"})["alerts.webhook.url"]
    config(private, {"FLEET_OTEL__ENDPOINT": "http://127.0.0.1:4318"})
    config("security: {backends: {allowed: [gpu1]}}", {"FLEET_ALERTS__WEBHOOK__URL": "http://hooks.example"})
    local = "security: {backends: {allow_link_local: true}}"
    config(local, {"FLEET_OTEL__ENDPOINT": "http://169.254.1.1:4318"})


def test_both_clients_take_whatever_is_accepted() -> None:
    requests = pytest.importorskip("requests")
    dice, good = random.Random(4), set[str]()
    for _ in range(4000):
        url = made(dice)
        try:
            check_receiver(url, plain=False)
        except ValueError:
            continue
        if url not in good:
            good.add(url)
            asked = httpx.URL(url)
            assert asked.host
            asked.raw_host.decode("ascii").encode("idna")
            assert httpx.Request("POST", url).url.raw_path
            assert requests.Request("POST", url).prepare().url
    assert len(good) > 300, "else the test tells nothing"
