"""The model: defaults, bounds, names, and the rules between keys."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from fleet.config import Config, SecuritySection, ServerSection, ServerSpec, schema, unsafe_listener
from fleet.config.schema.introspection import Shape, fields, leaves, spellings
from fleet.config.schema.types import Unit
from tests.fleet.config.config_kit import config, messages


def nested(path: str, value: object) -> dict[str, Any]:
    """{"a": {"b": value}} from "a.b"."""
    for step in reversed(path.split(".")):
        value = {step: value}
    assert isinstance(value, dict)
    return value


def models(model: type[BaseModel]) -> list[type[BaseModel]]:
    return [model, *(found for _, _, shape in fields(model) if shape.model for found in models(shape.model))]


NUMBERS = [
    pytest.param(path, shape, id=path)
    for path, _, shape in leaves(Config())
    if shape.base in (int, float) and not path.startswith("circuit_breaker.") and not shape.many
]
EVERY_FIELD = [
    pytest.param(info, shape, id=f"{model.__name__}.{name}")
    for model in models(Config)
    for name, info, shape in fields(model)
]


def test_the_defaults_that_others_rely_on() -> None:
    c = Config()
    assert (c.server.host, c.server.proxy_port, c.orchestrator_port) == ("127.0.0.1", 11435, 5100)
    assert (c.server.metrics_port, c.server.dashboard_port, c.drain_timeout) == (8001, 3001, 30.0)
    assert (c.queue_size, c.total_timeout, c.timeouts.first_byte) == (1000, 3600.0, 600.0)
    assert (c.load_balancer.policy, c.load_balancer.candidates, c.load_balancer.decisions) == ("weighted", 16, 256)
    assert (c.circuit_breaker.open_timeout, c.circuit_breaker.half_open_timeout) == (120_000, 300_000)
    assert (c.limits.body_bytes, c.limits.decoded_bytes) == (100 * 2**20, 20 * 2**20)
    assert (c.timeouts.head, c.timeouts.keep_alive, c.limits.headers) == (30.0, 180.0, 100)
    assert (c.server.tls.certificate, c.server.tls.key, c.server.trusted_proxies) == ("", "", ())
    assert c.servers == ()


@pytest.mark.parametrize(("path", "shape"), NUMBERS)
def test_bounds_are_what_the_shape_says(path: str, shape: Shape) -> None:
    assert shape.low is not None
    assert shape.high is not None
    for inside in (shape.low, shape.high):
        if not path.endswith("_port") and not path.startswith("load_balancer.weights"):
            Config.model_validate(nested(path, inside))
    step = 1 if shape.base is int else 0.0005
    for outside in (shape.low - step, shape.high + step, True, float("nan"), float("inf"), 10**5000, "1:30", None):
        if outside is not None or not shape.optional:
            with pytest.raises(ValidationError):
                Config.model_validate(nested(path, outside))


@pytest.mark.parametrize(("info", "shape"), EVERY_FIELD)
def test_every_field_is_described_with_its_unit(info: Any, shape: Shape) -> None:
    assert info.description
    assert info.description.endswith(".")
    unit = next((mark.name for mark in info.metadata if isinstance(mark, Unit)), shape.unit)
    assert (unit.rstrip("s") in info.description.lower()) if unit else True


@pytest.mark.parametrize("model", models(Config), ids=lambda model: model.__name__)
def test_camel_case_is_accepted_for_every_key(model: type[BaseModel]) -> None:
    for name in model.model_fields:
        assert spellings(model)[to_camel(name)] == name
        assert spellings(model)[name] == name


def test_load_is_another_name_of_first_byte() -> None:
    assert Config.model_validate({"timeouts": {"load": 7}}).timeouts.first_byte == 7
    assert config("timeouts: {load: 7}").timeouts.first_byte == 7
    assert "two spellings" in messages("timeouts: {load: 7, firstByte: 7}")["timeouts.first_byte"]


def test_frozen_and_hashable() -> None:
    with pytest.raises(ValidationError):
        Config().drain_timeout = 1.0  # type: ignore[misc]
    assert hash(Config()) == hash(Config())


@pytest.mark.parametrize("spelling", ["round-robin", "round_robin"])
def test_policies_may_be_hyphenated(spelling: str) -> None:
    assert config(f"load_balancer: {{policy: {spelling}}}").load_balancer.policy == "round_robin"


@pytest.mark.parametrize(
    ("text", "level"), [("debug", "DEBUG"), ("Warn", "WARNING"), ("warning", "WARNING"), ("CRITICAL", "CRITICAL")]
)
def test_levels_in_any_case(text: str, level: str) -> None:
    assert config(f"logging: {{level: {text}}}").logging.level == level


def test_overriding_keys() -> None:
    c = config("server: {request_timeout: 9}\nmonitoring: {max_queue_size: 0}\nport: 5200")
    assert (c.total_timeout, c.queue_size, c.orchestrator_port, c.port) == (9.0, 0, 5200, 5200)
    assert c.server.proxy_port == 11435


def test_the_two_names_of_one_port() -> None:
    assert config("server: {orchestrator_port: 5300}").port == 5300
    assert config("port: 5300\nserver: {orchestrator_port: 5300}").orchestrator_port == 5300
    assert "5300" in messages("port: 5200\nserver: {orchestrator_port: 5300}")["port"]
    assert Config(port=5200).server.orchestrator_port == 5200
    with pytest.raises(ValidationError):
        Config(port=1, server=ServerSection(orchestrator_port=2))


def test_tls_is_enabled_by_its_two_files() -> None:
    assert not Config().server.tls.enabled
    tls = config("server: {tls: {certificate: /etc/c.pem, key: 007}}").server.tls
    assert (tls.enabled, tls.certificate, tls.key) == (True, "/etc/c.pem", "007")


def test_trusted_proxies_have_one_spelling() -> None:
    text = "server: {trustedProxies: ['::1', 10.0.0.7/32, FD00:0::/8, '::ffff:10.0.0.0/104']}"
    assert config(text).server.trusted_proxies == ("::1", "10.0.0.7", "fd00::/8", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("security: {require_api_key: true}", "security.require_api_key", "api_keys is empty"),
        ("placement: {builder: gone}", "placement.builder", "gone"),
        ("load_balancer: {weights: {ZERO}}", "load_balancer.weights", "at least one"),
        ("circuit_breaker: {base_failure_threshold: 11}", "circuit_breaker.base_failure_threshold", "between"),
        ("server: {proxy_port: 5100}", "server.proxy_port", "needs its own"),
        ("servers: [{id: a, url: 'http://localhost:11435'}]", "servers.0.url", "itself listens"),
        ("server: {host: 0.0.0.0}\nservers: [{id: a, url: 'http://127.0.0.1:5100'}]", "servers.0.url", "itself"),
        ("security: {api_keys: [short]}", "security.api_keys.0", "8 to 4096"),
        ("security: {api_keys: ['with a space']}", "security.api_keys.0", "no spaces"),
        ("server: {host: 'http://x'}", "server.host", "alone"),
        ("server: {host: '[::1]'}", "server.host", "alone"),
        ("server: {tls: {certificate: c.pem}}", "server.tls.key", "is missing: server.tls.certificate is set"),
        ("server: {tls: {key: k.pem}}", "server.tls.certificate", "is missing: server.tls.key is set"),
        ("server: {tls: {certificate: c.pem, key: ''}}", "server.tls.key", "both or none"),
        ('server: {tls: {certificate: c.pem, key: "k\\n.pem"}}', "server.tls.key", "without control characters"),
        ("server: {trusted_proxies: [nginx]}", "server.trusted_proxies.0", "not a host name"),
        ("server: {trusted_proxies: ['10.0.0.1:80']}", "server.trusted_proxies.0", "such as 10.0.0.7, 10.0.0.0/8"),
        ("server: {trusted_proxies: [10.0.0.7/8]}", "server.trusted_proxies.0", "10.0.0.0/8 or 10.0.0.7?"),
        (f"server: {{trusted_proxies: [{', '.join(['10.0.0.1'] * 101)}]}}", "server.trusted_proxies", "at most 100"),
        (
            "server: {tls: {certificate: c, key: k}}\nservers: [{id: a, url: 'https://127.0.0.1:5100'}]",
            "servers.0.url",
            "itself listens",
        ),
        ("cors: {origins: ['https://x/']}", "cors.origins.0", "trailing slash"),
        ("servers: [{id: .., url: 'http://x'}]", "servers.0.id", "first a letter"),
        ("servers: [{id: a, url: 'http://x', tags: ['']}]", "servers.0.tags.0", "1 to 64"),
    ],
)
def test_rules(text: str, path: str, words: str) -> None:
    zero = ", ".join(f"{name}: 0" for name in type(Config().load_balancer.weights).model_fields)
    found = messages(text.replace("ZERO", zero))
    assert list(found) == [path]
    assert words in found[path]


def test_rules_that_must_not_bite() -> None:
    assert config("server: {proxy_port: 0, orchestrator_port: 0}").orchestrator_port == 0
    assert config("circuit_breaker: {adaptive: false, base_failure_threshold: 99}").circuit_breaker.adaptive is False
    assert config("server: {host: 10.0.0.1}\nservers: [{id: a, url: 'http://localhost:11435'}]").servers
    assert config("placement: {builder: a}\nservers: [{id: a, url: 'http://x'}]").placement.builder == "a"


def test_ids_and_urls_are_unique() -> None:
    found = messages(
        "servers:\n- {id: a, url: 'http://LOCALHOST:80/'}\n- {id: b, url: 'http://127.0.0.1'}\n- {id: a, url: 'http://x'}"
    )
    assert set(found) == {"servers.1.url", "servers.2.id"}
    assert "servers.0" in found["servers.1.url"]


def test_a_thousand_servers_and_not_one_more() -> None:
    many = [{"id": f"s{n}", "url": f"http://h{n}"} for n in range(1001)]
    assert len(Config.model_validate({"servers": many[:1000]}).servers) == 1000
    with pytest.raises(ValidationError):
        Config.model_validate({"servers": many})


@pytest.mark.parametrize(
    ("host", "security", "safe"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("LocalHost", {}, True),
        ("127.9.9.9", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("0.0.0.0", {}, False),
        ("::", {}, False),
        ("example.org", {}, False),
        ("127.0.0.1.example.org", {}, False),
        ("0.0.0.0", {"api_keys": ["12345678"]}, True),
        ("0.0.0.0", {"api_keys": ["12345678"], "require_api_key": False}, False),
        ("0.0.0.0", {"api_keys": ["12345678"], "require_api_key": True}, True),
        ("0.0.0.0", {"allow_unauthenticated": True}, True),
    ],
)
def test_unsafe_listeners(host: str, security: dict[str, object], safe: bool) -> None:
    sentence = unsafe_listener(Config.model_validate({"server": {"host": host}, "security": security}))
    assert (sentence is None) == safe
    assert sentence is None or host in sentence


def test_secrets_do_not_show() -> None:
    spec = ServerSpec.model_validate({"id": "a", "url": "http://x", "api_key": "hunter2hunter2"})
    keys = SecuritySection.model_validate({"api_keys": ["hunter2hunter2"]})
    assert "hunter2" not in f"{spec!r}{spec}{keys!r}{spec.model_dump_json()}{keys.model_dump_json()}"
    with pytest.raises(ValidationError, match="environment"):
        SecuritySection.model_validate({"api_keys": ["env:HUNTER2"]})
    with pytest.raises(ValidationError) as caught:
        SecuritySection.model_validate({"api_keys": ["hunter2\n"]})
    assert "hunter2" not in str(caught.value)


def test_the_schema_speaks_both_spellings() -> None:
    assert "loadBalancer" in schema()["properties"]
    assert "load_balancer" in schema(by_alias=False)["properties"]
    assert schema()["additionalProperties"] is False
    assert schema()["$defs"]["CircuitBreakerSection"]["properties"]["openTimeout"]["default"] == 120_000
