"""The control plane to one backend: probes, copies, deletions. httpx, one client per server.

One shared httpx pool is quadratic in idle connections and its pool can deadlock under cancellation; hence one client
per server, no connection limit, no environment, and every call with a deadline of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

import httpx
import orjson

from actors.endpoint import server_name
from fleet.errors import (
    BackendBroke,
    BackendError,
    BackendUnreachable,
    BadAnswer,
    ConnectTimeout,
    FirstByteTimeout,
    Phase,
)
from fleet.server import Row

if TYPE_CHECKING:
    from fleet.config import ServerSpec

_MAX_BODY = 16 * 1024 * 1024
"""A list of models longer than this is not believed."""

_BORDER: Mapping[type[httpx.HTTPError], type[BackendError]] = {
    httpx.ConnectTimeout: ConnectTimeout,
    httpx.ConnectError: BackendUnreachable,
    httpx.ReadTimeout: FirstByteTimeout,
    httpx.WriteTimeout: FirstByteTimeout,
}


@cache
def _trust() -> ssl.SSLContext:
    """Which certificates are believed. Reading them takes a dozen milliseconds: once, not for every server."""
    return httpx.create_ssl_context(trust_env=False)


class OllamaClient:
    """Control calls to one server. Every method raises BackendError and nothing else; cancellation closes the call.

    Making one raises ValueError if the server's URL or key is not one that it can use.
    """

    def __init__(self, spec: ServerSpec, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        key = spec.api_key.get_secret_value() if spec.api_key else None
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=4)
        self._name = spec.id
        try:
            self._http = httpx.AsyncClient(
                base_url=spec.url,
                headers=headers,
                limits=limits,
                transport=transport,
                verify=_trust(),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(5.0),
            )
            host = self._http.build_request("GET", "/").url.host  # read only now: it may fail, too
        except (httpx.InvalidURL, ValueError) as error:
            raise ValueError(f"cannot be used: {type(error).__name__}") from error
        self._more = {"sni_hostname": server_name(host)}

    async def __aenter__(self) -> OllamaClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def tags(self, timeout: float) -> list[Row]:
        """The rows of /api/tags."""
        return _rows(await self._json("GET", "/api/tags", None, timeout))

    async def ps(self, timeout: float) -> list[Row]:
        """The rows of /api/ps."""
        return _rows(await self._json("GET", "/api/ps", None, timeout))

    async def version(self, timeout: float) -> str | None:
        """The server's version, or None if it does not say."""
        answer = await self._json("GET", "/api/version", None, timeout)
        version = answer.get("version")
        return version if isinstance(version, str) and len(version) <= 64 else None

    async def copy(self, source: str, destination: str) -> tuple[int, bytes]:
        return await self._call("POST", "/api/copy", {"source": source, "destination": destination}, 60.0)

    async def delete(self, model: str) -> tuple[int, bytes]:
        return await self._call("DELETE", "/api/delete", {"model": model}, 60.0)

    async def unload(self, model: str, *, embedding: bool = False) -> tuple[int, bytes]:
        """Ask for the model to leave memory; works whether or not it is loaded."""
        if embedding:
            return await self._call("POST", "/api/embed", {"model": model, "keep_alive": 0}, 60.0)
        return await self._call("POST", "/api/generate", {"model": model, "keep_alive": 0}, 60.0)

    async def load(
        self, model: str, *, embedding: bool, options: Mapping[str, object], keep_alive: object, timeout: float
    ) -> tuple[int, bytes]:
        """Bring the model into memory with these runner options, and ask nothing of it. Cancelled: the load ends too.

        `keep_alive` as in Ollama's API; None is the server's default.
        """
        given = dict(options)
        body: dict[str, object] = {"model": model, "input": []} if embedding else {"model": model, "stream": False}
        if "shift" in given:  # forces a reload like the others, but stands beside them
            body["shift"] = given.pop("shift")
        if given:
            body["options"] = given
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        return await self._call("POST", "/api/embed" if embedding else "/api/generate", body, timeout)

    async def try_model(self, model: str, *, embedding: bool, timeout: float) -> tuple[int, bytes]:
        """The smallest real request: one token, or one word to embed. Loads the model if it is not in memory."""
        if embedding:
            return await self._call("POST", "/api/embed", {"model": model, "input": "ok"}, timeout)
        options = {"num_predict": 1, "temperature": 0}
        body = {"model": model, "prompt": "ok", "stream": False, "options": options}
        return await self._call("POST", "/api/generate", body, timeout)

    async def _json(self, method: str, path: str, body: Mapping[str, object] | None, timeout: float) -> Row:
        status, content = await self._call(method, path, body, timeout)
        if status != 200:
            raise BadAnswer(f"{path} answered {status}", Phase.HEADERS)
        return mapping(content)

    async def _call(
        self, method: str, path: str, body: Mapping[str, object] | None, timeout: float
    ) -> tuple[int, bytes]:
        limit = httpx.Timeout(timeout)
        with _border(self._name):
            async with self._http.stream(method, path, json=body, timeout=limit, extensions=self._more) as answer:
                content = bytearray()
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _MAX_BODY:
                        raise BadAnswer(f"{path} answered more than {_MAX_BODY} bytes", Phase.BODY)
                return answer.status_code, bytes(content)


class _border:  # noqa: N801  # reads as a keyword
    """Foreign exceptions stop here."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL | ValueError):  # UnicodeError is one: a strange name
            mapped = (
                _BORDER.get(type(error), BackendBroke) if isinstance(error, httpx.HTTPError) else BackendUnreachable
            )
            phase = Phase.CONNECT if mapped in (ConnectTimeout, BackendUnreachable) else Phase.HEADERS
            what = str(error) or type(error).__name__
            raise mapped(f"{self._server}: {what}", phase) from error


def mapping(content: bytes) -> Row:
    """An answer that is one JSON object; raises BadAnswer for any other."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadAnswer("answered something that is not JSON", Phase.BODY) from error
    if not isinstance(value, dict):
        raise BadAnswer("answered JSON that is not an object", Phase.BODY)
    return value


def _rows(answer: Row) -> list[Row]:
    rows = answer.get("models")
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise BadAnswer("'models' is not a list", Phase.BODY)
    return [row for row in rows if isinstance(row, dict)]
