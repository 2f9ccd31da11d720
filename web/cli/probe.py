"""`fleet check --probe`: whether the configured servers answer, asked side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httpx
import orjson
import trio

if TYPE_CHECKING:
    from fleet.config import Config, ServerSpec

PATIENCE: Final = 5.0
"""Seconds a server gets for all of its answer."""
AT_ONE_TIME: Final = 32
_MOST: Final = 65_536
"""Bytes of an answer."""
_LONGEST: Final = 64


def probed(config: Config, say: Callable[[str], None]) -> int:
    """Tell of each server, in the file's order, which Ollama it is or why not; how many are none."""
    found = trio.run(_all, config)
    for spec in config.servers:
        version, fault = found[spec.id]
        say(f"{spec.id:<24} {spec.url:<40} {f'Ollama {version}' if version else fault}")
    return sum(not version for version, _ in found.values())


async def _all(config: Config) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    room = trio.CapacityLimiter(AT_ONE_TIME)

    async def one(spec: ServerSpec) -> None:
        async with room:
            found[spec.id] = await _asked(client, spec)

    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client, trio.open_nursery() as nursery:
        for spec in config.servers:
            nursery.start_soon(one, spec)
    return found


async def _asked(client: httpx.AsyncClient, spec: ServerSpec) -> tuple[str, str]:
    """The version a server tells; or what is wrong."""
    key = spec.api_key.get_secret_value() if spec.api_key is not None else ""
    fields = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with trio.fail_after(PATIENCE):
            async with client.stream("GET", f"{spec.url.rstrip('/')}/api/version", headers=fields) as answer:
                if answer.status_code != 200:
                    return "", f"answers {answer.status_code}"
                return _version(await _whole(answer))
    except (trio.TooSlowError, httpx.TimeoutException):
        return "", f"does not answer within {PATIENCE:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return "", f"cannot be reached: {str(error)[:200] or type(error).__name__}"


async def _whole(answer: httpx.Response) -> bytes:
    """The body. Raises ValueError for one that is too long."""
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > _MOST:
            raise ValueError("the answer has no end")
    return body


def _version(body: bytes) -> tuple[str, str]:
    try:
        version = orjson.loads(body)["version"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        version = None
    if not isinstance(version, str) or not version:
        return "", "answers, but not as an Ollama does"
    return "".join(filter(str.isprintable, version))[:_LONGEST], ""
