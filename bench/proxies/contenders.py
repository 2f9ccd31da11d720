"""Who is measured: how each is configured, started and reached."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import free_port
from bench.proxies import configs, install

BOTH = ("ollama", "openai")


@dataclass(frozen=True)
class Launch:
    """A command to start, and where it then answers. `target` is None while that is not known."""

    command: list[str]
    target: Callable[[], str | None]
    env: Mapping[str, str] = field(default_factory=dict)
    dashboard: str = ""
    """Where its live clients come in, if it has any."""


@dataclass(frozen=True)
class Contender:
    """`prepare` writes the configuration into a folder of its own; None: nothing to start, it runs already."""

    name: str
    prepare: Callable[[Path, Sequence[str]], Launch] | None
    missing: install.Missing = install.nothing_missing
    dialects: tuple[str, ...] = BOTH
    prefix: str = ""
    url: str = ""
    patience: float = 15  # seconds until it must answer

    def target(self, servers: Sequence[str]) -> str:
        """Where one answers that need not be started: a peer at its URL, `direct` at the first server."""
        parts = urlsplit(self.url or servers[0])
        return f"{socket.gethostbyname(parts.hostname or '')}:{parts.port}"


def _at(port: int) -> Callable[[], str]:
    return lambda: f"127.0.0.1:{port}"


def _write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def _nginx(folder: Path, servers: Sequence[str]) -> Launch:
    port = free_port()
    (folder / "tmp").mkdir(exist_ok=True)
    conf = _write(folder, "nginx.conf", configs.nginx(port, servers, root=os.geteuid() == 0))
    return Launch(["nginx", "-p", str(folder), "-e", "stderr", "-c", conf], _at(port))


def _haproxy(folder: Path, servers: Sequence[str]) -> Launch:
    port = free_port()
    return Launch(["haproxy", "-q", "-f", _write(folder, "haproxy.cfg", configs.haproxy(port, servers))], _at(port))


def _fleet(folder: Path, servers: Sequence[str]) -> Launch:
    ports = free_port(), free_port(), free_port()
    conf = _write(folder, "config.yml", configs.fleet(ports, servers))
    command = [str(install.FLEET), "serve", "--config", conf]
    return Launch(command, _at(ports[0]), {"TMPDIR": str(folder)}, f"127.0.0.1:{ports[2]}")


def _quart(folder: Path, servers: Sequence[str]) -> Launch:
    """The fleet again, met behind its fast lane: on the private socket of its Quart application."""
    for old in folder.glob("fleet-*/app.sock"):
        old.unlink()
    launch = _fleet(folder, servers)

    def app_socket() -> str | None:
        return next((f"unix:{path}" for path in folder.glob("fleet-*/app.sock")), None)

    return Launch(launch.command, app_socket, launch.env)


def _naive(folder: Path, servers: Sequence[str]) -> Launch:
    port = free_port()
    return Launch(
        [sys.executable, "-m", "bench.proxies.naive", str(port), *servers], _at(port), {"PYTHONPATH": str(install.ROOT)}
    )


def _bare(folder: Path, servers: Sequence[str]) -> Launch:
    """Knows one server only."""
    port = free_port()
    command = [sys.executable, "-m", "bench.proxies.bare", str(port), servers[0]]
    return Launch(command, _at(port), {"PYTHONPATH": str(install.ROOT)})


# Quiet, nothing fetched from elsewhere, and no key to check: it lives for minutes, on loopback, before fake servers.
LITELLM_SETTINGS = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DISABLE_ADMIN_UI": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


def _litellm(folder: Path, servers: Sequence[str]) -> Launch:
    port = free_port()
    conf = _write(folder, "config.yml", configs.litellm(servers))
    command = [str(install.LITELLM), "--config", conf, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return Launch(command, _at(port), LITELLM_SETTINGS)


def _olla(folder: Path, servers: Sequence[str]) -> Launch:
    port = free_port()
    conf = _write(folder, "config.yml", configs.olla(port, servers))
    return Launch([str(install.OLLA), "--config", conf], _at(port))


CONTENDERS = (
    Contender("direct", None),
    Contender("nginx", _nginx, install.program("nginx")),
    Contender("haproxy", _haproxy, install.program("haproxy")),
    Contender("fleet", _fleet, install.fleet),
    Contender("quart", _quart, install.fleet, patience=5),
    Contender("bare", _bare),
    Contender("naive", _naive),
    Contender("litellm", _litellm, install.litellm, dialects=("openai",), patience=60),
    Contender("olla", _olla, install.olla, dialects=("ollama",), prefix="/olla/ollama"),
)
QUICK = ("direct", "nginx", "haproxy", "fleet", "bare", "naive")


def peer(text: str) -> Contender:
    """A contender that somebody else has started, from `name=url`. Raises ValueError."""
    name, _, url = text.partition("=")
    parts = urlsplit(url)
    if not name or parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ValueError(f"a peer is name=http://ADDRESS:PORT, not {text!r}")
    return Contender(name, None, url=url, prefix=parts.path.rstrip("/"))
