"""Layers: file, environment, flags; secrets; amendments; what `fleet check` prints."""

from __future__ import annotations

import pytest

from fleet.config import ConfigError, amend, report
from fleet.config.loading.environment import variable_names
from tests.fleet.config.config_kit import config, loaded, messages, problems


def test_later_layers_win_and_say_so() -> None:
    text, env = "queue: {max_size: 1, ageing_seconds: 1, no_server_grace: 1}", {"FLEET_QUEUE__AGEING_SECONDS": "2"}
    env["FLEET_QUEUE__NO_SERVER_GRACE"] = "2"
    found = loaded(text, env, {"queue.no_server_grace": 3, "queue.max_size": None})
    queue = found.config.queue
    assert (queue.max_size, queue.ageing_seconds, queue.no_server_grace) == (1, 2.0, 3.0)
    assert found.origins["queue.max_size"] == "f.yml:1"
    assert found.origins["queue.ageing_seconds"] == "environment FLEET_QUEUE__AGEING_SECONDS"
    assert found.origins["queue.no_server_grace"] == "flag queue.no_server_grace"
    assert found.origins["drain_timeout"] == "default"


def test_a_later_layer_wins_under_either_name_of_the_port() -> None:
    env = {"FLEET_SERVER__ORCHESTRATOR_PORT": "5300"}
    assert loaded("port: 5200", env).config.port == 5300
    assert loaded("server: {orchestrator_port: 5200}", {"FLEET_PORT": "5300"}).config.orchestrator_port == 5300
    found = loaded("port: 5200", env, {"port": 5400})
    assert (found.config.port, found.origins["server.orchestrator_port"]) == (5400, "flag port")


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("FLEET_DRAIN_TIMEOUT", "5", "drain_timeout", 5.0),
        ("FLEET_ENABLE_QUEUE", "no", "enable_queue", False),
        ("FLEET_SERVER__PROXY_PORT", "0", "server.proxy_port", 0),
        ("FLEET_SERVER__REQUEST_TIMEOUT", "null", "server.request_timeout", None),
        ("FLEET_LOAD_BALANCER__WEIGHTS__LOAD", "1e1", "load_balancer.weights.load", 10.0),
        ("FLEET_TIMEOUTS__LOAD", "9", "timeouts.first_byte", 9.0),
        ("FLEET_SECURITY__RATE_LIMITING__ENABLED", "on", "security.rate_limiting.enabled", True),
        ("FLEET_CORS__ORIGINS", "http://a, http://b ,", "cors.origins", ("http://a", "http://b")),
        ("FLEET_CORS__ORIGINS", '["*", http://b]', "cors.origins", ("*", "http://b")),
        ("FLEET_SERVER__TRUSTED_PROXIES", "::1, 10.0.0.0/8", "server.trusted_proxies", ("::1", "10.0.0.0/8")),
        ("FLEET_TIMEOUTS__KEEP_ALIVE", "75", "timeouts.keep_alive", 75.0),
        ("LOG_LEVEL", "debug", "logging.level", "DEBUG"),
    ],
)
def test_environment(name: str, value: str, path: str, expected: object) -> None:
    found = loaded(None, {name: value})
    at: object = found.config
    for step in path.split("."):
        at = getattr(at, step)
    assert at == expected
    assert found.origins[path] == f"environment {name}"


def test_tls_from_the_environment_is_shown_with_its_sources() -> None:
    env = {"FLEET_SERVER__TLS__CERTIFICATE": "/run/c.pem", "FLEET_SERVER__TLS__KEY": "/run/k.pem"}
    found = loaded("server: {tls: {key: old.pem, certificate: old.pem}}", env)
    assert (found.config.server.tls.certificate, found.config.server.tls.key) == ("/run/c.pem", "/run/k.pem")
    lines = [" ".join(line.split()) for line in report(found).splitlines()]
    assert 'server.tls.certificate = "/run/c.pem" # environment FLEET_SERVER__TLS__CERTIFICATE' in lines
    assert 'server.tls.key = "/run/k.pem" # environment FLEET_SERVER__TLS__KEY' in lines
    assert set(messages(None, {**env, "FLEET_SERVER__TLS__KEY": ""})) == {"server.tls.key"}
    (half,) = problems("server:\n  tls:\n    certificate: c.pem\n")
    assert half.source == "f.yml:2"


def test_servers_from_the_environment() -> None:
    env = {"FLEET_SERVERS": "http://127.0.0.1:11434, gpu=https://b/x=y,http://[::1]:5/base/"}
    found = {spec.id: spec.url for spec in config("servers: [{id: old, url: http://old}]", env).servers}
    assert found == {
        "127.0.0.1-11434": "http://127.0.0.1:11434",
        "gpu": "https://b/x=y",
        "1-5-base": "http://[::1]:5/base",
    }
    assert config(None, {"FLEET_SERVERS": '[{"id": "a", "url": "http://x", "priority": 5}]'}).servers[0].priority == 5
    assert "servers.1.url" in messages(None, {"FLEET_SERVERS": "http://a,ftp://hunter2"})


def test_unknown_variables_are_errors() -> None:
    found = messages(
        None, {"FLEET_SERVER__PROXYPORT": "1", "FLEET_QUEUE": "{}", "OTHER": "x", "FLEET_CORS__ORIGINS": "[a"}
    )
    assert set(found) == {"FLEET_SERVER__PROXYPORT", "FLEET_QUEUE", "FLEET_CORS__ORIGINS"}
    assert "did you mean FLEET_SERVER__PROXY_PORT?" in found["FLEET_SERVER__PROXYPORT"]


def test_variables_that_are_none_of_our_business() -> None:
    env = {
        "FLEET_URL": "http://x", "FLEET_TOKEN": "t", "FLEET_CONFIG": "c", "FLEET_QUEUE__MAX_SIZE": "",
        "FLEET_PORT": "tcp://10.0.0.1:80", "FLEET_SERVICE_HOST": "10.0.0.1", "FLEET_SERVICE_PORT_HTTP": "80",
        "FLEET_PORT_80_TCP_ADDR": "10.0.0.1", "FLEET_WEB_SERVICE_HOST": "10.0.0.2", "FLEET_WEB_PORT": "udp://x:1",
        "LOG_LEVEL": "", "PATH": "/bin", "fleet_port": "1",
    }  # fmt: skip
    assert loaded(None, env).origins == loaded(None).origins


def test_every_leaf_has_a_variable() -> None:
    names = variable_names()
    for path in loaded(None).origins:
        assert f"FLEET_{path.replace('.', '__').upper()}" in names
    assert not [name for name in names if name != name.upper()]


def test_secrets_come_from_the_environment() -> None:
    text = "servers: [{id: a, url: http://x, api_key: env:KEY}]\nsecurity: {api_keys: [env:FLEET_API_KEY]}"
    found = loaded(text, {"KEY": "012", "FLEET_API_KEY": "12345678"})
    key = found.config.servers[0].api_key
    assert key is not None
    assert key.get_secret_value() == "012"
    assert found.config.security.api_keys[0].get_secret_value() == "12345678"
    assert found.origins["servers.0.api_key"] == "f.yml:1, environment KEY"
    missing = messages(text, {"KEY": ""})
    assert set(missing) == {"servers.0.api_key", "security.api_keys.0"}
    assert all("not set or empty" in message for message in missing.values())
    assert "12345678" not in repr(found)


def test_a_secret_that_would_split_a_header_is_refused_unseen() -> None:
    found = messages("security: {api_keys: [env:K]}", {"K": "hunter2hunter2\n"})
    assert "no line ends" in found["security.api_keys.0"]
    assert "hunter2" not in str(found)


def test_all_problems_at_once_from_all_layers() -> None:
    text = "servers: [{id: a, url: 'ftp://x'}]\nnope: 1\nsecurity: {api_keys: [env:GONE]}\nretry: {max_attempts: 0}"
    found = problems(text, {"FLEET_NOPE": "1", "FLEET_QUEUE__MAX_SIZE": "x"}, {"logging.level": "loud", "a.b": 1})
    assert {problem.path for problem in found} == {
        "servers.0.url", "nope", "security.api_keys.0", "retry.max_attempts", "FLEET_NOPE", "queue.max_size",
        "logging.level", "a",
    }  # fmt: skip
    assert all("\n" not in str(problem) for problem in found)


def test_a_default_that_clashes_has_no_source() -> None:
    (problem,) = problems("port: 11435")
    assert (problem.path, problem.source) == ("server.proxy_port", "")


def test_a_broken_file_does_not_hide_the_rest() -> None:
    assert set(messages("a: [", {"FLEET_PORT": "x"})) == {"file", "port"}


def test_flags() -> None:
    found = loaded("cors: {origins: [http://x]}", {}, {"servers": ["gpu=http://a"], "server": {"proxyPort": 1}})
    assert (found.config.servers[0].id, found.config.server.proxy_port) == ("gpu", 1)
    assert loaded(None, {}, {"drainTimeout": "5", "cors.origins": ("http://y",)}).config.cors.origins == ("http://y",)
    assert "list" in messages(None, {}, {"servers.0.url": "http://x"})["servers"]


def test_amendments_keep_sources_and_refuse_references() -> None:
    base = loaded("queue: {max_size: 5}\nport: 5200")
    found = amend(base, {"loadBalancer": {"policy": "random"}, "port": 5300}, source="PATCH")
    assert (found.config.queue.max_size, found.config.load_balancer.policy, found.config.port) == (5, "random", 5300)
    assert found.origins["load_balancer.policy"] == "PATCH"
    assert found.origins["queue.max_size"] == "f.yml:1"
    assert base.config.port == 5200
    with pytest.raises(ConfigError, match="only in the configuration at start"):
        amend(base, {"security": {"api_keys": ["env:PATH"]}}, source="PATCH")


def test_the_report_shows_values_and_sources_but_no_secrets() -> None:
    text = (
        "server: {request_timeout: 9, metrics_port: 9000}\n"
        "security: {api_keys: [hunter2hunter2]}\nmonitoring: {max_queue_size: }"
    )
    lines = [" ".join(line.split()) for line in report(loaded(text)).splitlines()]
    assert "timeouts.total = 9.0 # f.yml:1, as server.request_timeout" in lines
    assert "queue.max_size = 1000 # default" in lines
    assert "security.api_keys = [**********] # f.yml:2" in lines
    assert "hunter2" not in "".join(lines)


def test_the_report_says_so_when_given_keys_are_not_asked_for() -> None:
    assert "open: security.api_keys" not in report(loaded("security: {api_keys: [hunter2hunter2]}"))
    assert "open: security.api_keys" in report(loaded("security: {api_keys: [hunter2hunter2], require_api_key: false}"))


def test_the_report_cannot_be_used_to_write_to_a_terminal() -> None:
    text = 'servers: [{id: a, url: http://x, tags: ["\\e[31m\\nevil"]}]'
    assert report(loaded(text)).isascii()
    assert "\x1b" not in report(loaded(text))
