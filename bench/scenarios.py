"""What is measured: the load, the request, and the servers behind the contenders. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

PACE_US = 33_333  # 30 tokens per second
SETTLE = 0.5  # seconds between the last stream's opening and counting
QUESTION = "What is machine learning? Please explain in detail with examples."
CHAT = '{"model":"m0","stream":%s,"messages":[{"role":"user","content":"' + QUESTION + '"}]}'
BIG_PROMPT = 8 * 1024 * 1024


@dataclass(frozen=True)
class Bed:
    """The servers behind the contenders: how many, how they answer, whether one fails one request in N."""

    tokens: int = 100
    interval_us: int = 0
    addresses: int = 1
    fail_one_in: int = 0


@dataclass(frozen=True)
class Request:
    """A request, and the words that a complete answer contains near its end."""

    path: str
    body: str
    end: str

    def wire(self, prefix: str = "") -> bytes:
        body = self.body.encode()
        head = f"POST {prefix}{self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True)
class Closed:
    connections: int


@dataclass(frozen=True)
class Streams:
    count: int
    per_second: int

    def opening(self) -> float:
        return self.count / self.per_second

    def tokens(self, steady: float) -> int:
        """So many that the first stream lives until counting has ended."""
        return math.ceil((self.opening() + SETTLE + steady + 0.5) * 1e6 / PACE_US)

    def timeout(self, steady: float) -> float:
        return self.opening() + 1.5 * self.tokens(steady) * PACE_US / 1e6 + 5

    def bed(self, steady: float) -> Bed:
        return Bed(self.tokens(steady), PACE_US, addresses=5)  # one server takes at most 1,024 requests at a time


@dataclass(frozen=True)
class Scenario:
    """`reference` is what ratios are taken against; `too_slow` names contenders that would only time out."""

    name: str
    title: str
    request: str
    load: Closed | Streams
    reference: str = "nginx"
    bed: Bed = Bed()
    too_slow: tuple[str, ...] = ()

    @property
    def dialect(self) -> str:
        return "openai" if REQUESTS[self.request].path.startswith("/v1/") else "ollama"

    def servers(self, steady: float) -> Bed:
        return self.load.bed(steady) if isinstance(self.load, Streams) else self.bed


REQUESTS = {
    "short": Request("/api/chat", CHAT % "false", '"done":true'),
    "burst": Request("/api/chat", CHAT % "true", '"done":true'),
    "embed": Request("/api/embed", f'{{"model":"nomic-embed","input":"{QUESTION}"}}', "total_duration"),
    "prompt": Request(
        "/api/generate", '{"model":"m0","stream":false,"prompt":"' + "word " * (BIG_PROMPT // 5) + '"}', '"done":true'
    ),
    "openai_short": Request("/v1/chat/completions", CHAT % "false", '"usage"'),
    "openai_burst": Request("/v1/chat/completions", CHAT % "true", "[DONE]"),
}

FAILING = Bed(addresses=3, fail_one_in=33)
SLOW = ("naive", "quart", "litellm")

SCENARIOS = (
    Scenario("short_1", "short answers, 1 connection", "short", Closed(1)),
    Scenario("short_32", "short answers, 32 connections", "short", Closed(32)),
    Scenario("short_256", "short answers, 256 connections", "short", Closed(256)),
    Scenario("burst_32", "100-token bursts, 32 connections", "burst", Closed(32)),
    Scenario("embed_32", "embeddings (768 floats), 32 connections", "embed", Closed(32)),
    Scenario("prompt_4", "8 MiB prompts, 4 connections", "prompt", Closed(4)),
    Scenario("openai_short_32", "short answers on /v1, 32 connections", "openai_short", Closed(32)),
    Scenario("openai_burst_32", "100-token bursts on /v1, 32 connections", "openai_burst", Closed(32)),
    Scenario("failing", "3 servers, one fails 1 request in 33, 32 connections", "short", Closed(32), bed=FAILING),
    Scenario("streams_1000", "1,000 live streams at 30 tokens/s", "burst", Streams(1000, 500), "direct", too_slow=SLOW),
    Scenario("streams_4000", "4,000 live streams at 30 tokens/s", "burst", Streams(4000, 1000), too_slow=SLOW),
)

# Measured one contender at a time, each freshly started; see special.py.
MEMORY = Scenario("memory", "memory per live stream, 1,000 streams", "burst", Streams(1000, 500), too_slow=SLOW)
