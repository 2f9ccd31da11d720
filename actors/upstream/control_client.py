"""The control plane to one backend: probes, copies, deletions. Every answer is bounded in time, bytes and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final

from actors.upstream.control_call import Control, Status
from fleet.common.errors import BadAnswer, Phase
from fleet.models import inventory
from fleet.scheduling.server_state import Row

if TYPE_CHECKING:
    from actors.upstream.connection import Dial
    from fleet.config import ServerSpec

_LIST: Final = 4 * 2**20
"""Bytes. A list of models longer than this is not believed."""
_WORD: Final = 2**18
"""Bytes of any other answer: a vector of 10,000 numbers, or a sentence."""
_SHORT: Final = 60.0
"""Seconds for what takes a moment."""


class OllamaClient:
    """Control calls to one server. Every method raises BackendError or OutOfDescriptors. Cancelled: it is closed.

    Making one raises ValueError if the server's URL is not one that it can use. `on_connect`: see `Control`.
    """

    def __init__(
        self, spec: ServerSpec, *, dial: Dial | None = None, on_connect: Callable[[], None] | None = None
    ) -> None:
        self._control = Control(spec, dial, on_connect)

    async def __aenter__(self) -> OllamaClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self._control.close()

    async def tags(self, timeout: float) -> list[Row]:
        """The rows of /api/tags."""
        return await self._rows("/api/tags", timeout)

    async def ps(self, timeout: float) -> list[Row]:
        """The rows of /api/ps."""
        return await self._rows("/api/ps", timeout)

    async def version(self, timeout: float) -> str | None:
        """The server's version, or None if it does not say."""
        return inventory.version(await self._json("/api/version", timeout, _WORD))

    async def copy(self, source: str, destination: str) -> tuple[int, bytes]:
        return await self._call("POST", "/api/copy", {"source": source, "destination": destination}, _SHORT)

    async def delete(self, model: str) -> tuple[int, bytes]:
        return await self._call("DELETE", "/api/delete", {"model": model}, _SHORT)

    async def unload(self, model: str, *, embedding: bool = False) -> tuple[int, bytes]:
        """Ask for the model to leave memory; works whether or not it is loaded."""
        if embedding:
            return await self._call("POST", "/api/embed", {"model": model, "keep_alive": 0}, _SHORT)
        return await self._call("POST", "/api/generate", {"model": model, "keep_alive": 0}, _SHORT)

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

    async def _rows(self, path: str, timeout: float) -> list[Row]:
        answer = await self._json(path, timeout, _LIST)
        try:
            return inventory.rows(answer)
        except ValueError as error:
            raise BadAnswer(str(error), Phase.BODY) from error

    async def _json(self, path: str, timeout: float, most: int) -> Row:
        status, content = await self._control.call("GET", path, None, timeout=timeout, most=most)
        if status != 200:
            raise BadAnswer(f"{path} answered {status}", Phase.HEADERS)
        return mapping(content)

    async def _call(self, method: str, path: str, body: Mapping[str, object], timeout: float) -> Status:
        return await self._control.call(method, path, body, timeout=timeout, most=_WORD)


def mapping(content: bytes) -> Row:
    """An answer that is one JSON object; raises BadAnswer for any other."""
    try:
        return inventory.mapping(content)
    except ValueError as error:
        raise BadAnswer(str(error), Phase.BODY) from error
