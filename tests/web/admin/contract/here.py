"""What a row of the contract is, and the product that it is held against."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio

from fleet.breakers.recovery_log import Failure, Source
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.simulator import Profile
from tests.kit.clients.admin import ROOT, checked
from tests.kit.fleets.configured import configured
from tests.kit.fleets.history import history_in
from tests.kit.fleets.served import Served
from web.process.log_buffer import LogRing

SEED: Final = Path(__file__).parent / "seed_routes.txt"
MODELS: Final = "llama3:8b:4.7GB,me/deep:7b:1GB,nomic-embed-text:latest:274MB"
STEADY: Final = Profile(load_seconds=0.3, slots=4, tokens_per_second=200.0, prefill_per_second=20_000.0)
FILE: Final = "circuit_breaker:\n  adaptive: false\n  open_jitter: 0\n"
DEEP: Final = "me/deep:7b"
SPELLINGS: Final = ("me/deep:7b", "me%2Fdeep:7b", "me%2fdeep%3a7b", "ME/Deep:7B")
ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
STATES: Final = {"closed", "open", "half-open"}


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """The process keeps its log as `fleet serve` does."""
    ring, root, ours = LogRing(), logging.getLogger(), logging.getLogger("fleet")
    level = ours.level
    root.addHandler(ring)
    ours.setLevel(logging.INFO)
    yield
    root.removeHandler(ring)
    ours.setLevel(level)


class Here:
    """A running product and what a row needs of it. `url`: which of its ports is asked."""

    def __init__(self, fleet: Served, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.began = time.time()
        self.took: list[float] = []

    async def ask(self, method: str, path: str, body: object = None, status: int = 200, **more: Any) -> Any:
        answer = await self.raw(method, ROOT + path, json=body, **more)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        found = checked(method, ROOT + path, answer)
        assert found["success"] is (status < 400) or path.endswith("recovery-test")
        return found

    async def raw(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20.0) as client:
            return await client.request(method, path, **more)

    async def talk(self, times: int = 1, model: str = "llama3:8b", tokens: int = 30, stream: bool = False) -> None:
        """Requests of `tokens` / 200 seconds each; `took` says how long the client saw them take, in milliseconds."""
        for _ in range(times):
            began = trio.current_time()
            body = {"model": model, "prompt": "x", "stream": stream, "options": {"num_predict": tokens}}
            answer = await self.raw("POST", "/api/generate", json=body)
            assert answer.status_code == 200
            self.took.append(1000 * (trio.current_time() - began))

    async def fail(self, times: int = 3) -> None:
        """Requests for the deep model that server a refuses."""
        self.fleet.sims["a"].host.faults.set("status:503:down")
        for _ in range(times):
            await self.raw("POST", "/api/generate--a", json={"model": DEEP, "prompt": "x", "stream": False})
        self.fleet.sims["a"].host.faults.set()

    def tell(self) -> None:
        """Two probes of server a have failed, 60 and 30 seconds ago; another came through since."""
        book, now = self.fleet.system.recovery_log, trio.current_time()
        pair = Pair(ServerId("a"), ModelName(""))
        for ago, failure in ((60.0, Failure("connection_refused", "nobody listens")), (30.0, None)):
            book.attempt(pair, Source.HEALTH_CHECK, now - ago - 1.0, failure=Failure("timeout", "late"))
            book.attempt(pair, Source.HEALTH_CHECK, now - ago, failure=failure)

    def lately(self, shown: object) -> None:
        """`shown` is epoch milliseconds of now, or ISO 8601 in UTC with milliseconds."""
        if isinstance(shown, str):
            assert ISO.fullmatch(shown), shown
            moment = datetime.fromisoformat(shown).timestamp()
        else:
            assert type(shown) is int
            moment = shown / 1000
        assert self.began - 30.0 < moment < time.time() + 1.0, shown


Check = Callable[[Here, Any], Awaitable[None] | None]
Setup = Callable[[Here], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One documented route: how it is asked, what must have happened before, and what the answer means."""

    path: str
    check: Check
    body: object = None
    setup: Setup | None = None


ROWS: Final[dict[str, Row]] = {}


def row(route: str, path: str, body: object = None, setup: Setup | None = None) -> Callable[[Check], Check]:
    def declared(check: Check) -> Check:
        assert route not in ROWS
        ROWS[route] = Row(path, check, body, setup)
        return check

    return declared


@asynccontextmanager
async def running(directory: Path, url: str = "proxy") -> AsyncIterator[Here]:
    """The product with two servers and a file."""
    (directory / "config.yml").unlink(missing_ok=True)
    (directory / "history.db").unlink(missing_ok=True)
    async with (
        history_in(directory) as history,
        configured(directory, "a", "b", models=MODELS, profile=STEADY, text=FILE, history=history) as fleet,
    ):
        yield Here(fleet, fleet.url if url == "proxy" else fleet.orchestrator_url)
