"""What a refusal proves by itself: whose fault it is, as far as one server's word goes.

Ollama says 500 for its own trouble and for the client's, and what stands between us and a server says anything. Lists
of texts age; so only the client's faults must be known here, because they are final. For the rest a second server is
the witness: see `actors.requests.second_witness`.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Ground(enum.Enum):
    """What a refusal is about."""

    CLIENT = "client"
    """The request itself: final at once, and nobody is to blame."""
    MODEL = "model"
    """This server has no such model."""
    ROUTE = "route"
    """This server is too old for the endpoint."""
    STANDING = "standing"
    """This server does not let the fleet in: our key, our address, its proxy."""
    BUSY = "busy"
    """It has enough to do. That is back-pressure, not a fault."""
    GATEWAY = "gateway"
    """What stands before the server cannot reach it, or the server is on its way up or down."""
    MEMORY = "memory"
    """The model does not fit into this server."""
    CRASH = "crash"
    """The model runner died, or would not start: because of the server, or of a request that kills runners."""
    SIZE = "size"
    """Too large for what stands before this server."""
    DOUBT = "doubt"
    """Nobody can tell yet."""


WITNESSED: Final = frozenset({Ground.CRASH, Ground.SIZE, Ground.DOUBT})
"""Where a second server that says the same proves that it is the request's fault.

Not where each server speaks of itself: two that are busy, or have no room for the model, say nothing of the request.
"""

_BY_STATUS: Final = {
    401: Ground.STANDING,
    403: Ground.STANDING,
    407: Ground.STANDING,
    408: Ground.BUSY,
    413: Ground.SIZE,
    414: Ground.SIZE,
    425: Ground.BUSY,
    429: Ground.BUSY,
    431: Ground.SIZE,
    499: Ground.CLIENT,
    502: Ground.GATEWAY,
    504: Ground.GATEWAY,
    511: Ground.GATEWAY,
    **dict.fromkeys(range(520, 531), Ground.GATEWAY),
}
_IN_OWN_WORDS: Final = frozenset({400, 404, 422})
"""Statuses that are the client's fault when the server says so in its API's own JSON, and not on some proxy's page."""

_CAPABILITY: Final = "chat|generate|completions?|tools?|thinking|embed(?:ding)?s?|insert|suffix|images?|vision|audio"
_CLIENT: Final = re.compile(
    r'\s*(?:option "|invalid (?:option|format|image|input|schema|message|role|character|duration)|template:|json:'
    r"|time: |strconv\.|illegal base64|unexpected end of json|unmarshal|cannot unmarshal|unsupported (?:image|format)"
    r"|failed to (?:parse|process|decode) (?:the )?(?:grammar|schema|images?|input)|image: unknown format"
    r"|the prompt is longer than|(?:the )?input (?:length|is too)|prompt (?:is )?too long"
    r"|exceeds? (?:the )?maximum context|this model is missing data required for image input"
    rf'|(?:"[^"]{{1,300}}"|\S{{1,300}}|this model|the model) does not support (?:{_CAPABILITY})\b)'
)
"""How Ollama's errors about the client's own input begin; what follows may quote the client, so it proves nothing."""

_MEMORY: Final = re.compile(
    r"requires more [a-z ]{0,30}memory|more memory than is available|not enough [a-z ]{0,20}memory"
)
_BUSY: Final = ("server busy, please try again", "maximum pending requests exceeded")
_CRASH: Final = (
    "runner has unexpectedly stopped",
    "llama-server process",
    "error starting llama-server",
    "timed out waiting for llama-server",
    "out-of-memory",
    "out of memory",
    "may be incompatible",
    "llama runner",
    "error was encountered while running the model",
    "post predict",
    "no slots available",
    "unable to load model",
    "failed to load model",
    "error loading model",
    "cuda error",
    "signal: killed",
)

_DIED: Final = (
    "runner has unexpectedly stopped",
    "llama-server process",
    "llama runner process",
    "post predict",
    "signal: killed",
)
"""Of these, what is said of a runner that died at work, and not of a model that could not be loaded."""

# What differs between two servers that say the same: numbers, ids, addresses, names of hosts and files.
_VARIABLE: Final = re.compile(r"https?://[^\s\"'<>]*|[^\s\"'<>]*\d[^\s\"'<>]*|[\w-]+(?:\.[\w-]+)+")
_LONGEST: Final = 500


def is_crash_text(text: str) -> bool:
    """Whether one of Ollama's own known texts says that the model runner died."""
    lowered = text[:_LONGEST].lower()
    return _CLIENT.match(lowered) is None and any(known in lowered for known in _CRASH)


def is_death_text(text: str) -> bool:
    """Whether a runner died at work, be it of what it was asked to do or not."""
    lowered = text[:_LONGEST].lower()
    return _CLIENT.match(lowered) is None and any(known in lowered for known in _DIED)


def ground(status: int, text: str, *, missing: bool, ours: bool) -> Ground:
    """What a refusal is about. `missing`: it denies the model; `ours`: it is an error in the API's own JSON."""
    if missing:
        return Ground.MODEL
    if ours and status in _IN_OWN_WORDS:
        return Ground.CLIENT
    if status == 404 and not ours and text.startswith("404 page not found"):
        return Ground.ROUTE
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    if status == 503:
        return Ground.BUSY if any(words in text.lower() for words in _BUSY) else Ground.GATEWAY
    return _by_text(text) if ours and (status >= 500 or status == 200) else Ground.DOUBT


def _by_text(text: str) -> Ground:
    """What Ollama says under one status (or in the first record of an answer) for very different reasons."""
    lowered = text[:_LONGEST].lower()
    if _CLIENT.match(lowered):
        return Ground.CLIENT
    if _MEMORY.search(lowered):
        return Ground.MEMORY
    if any(known in lowered for known in _CRASH):
        return Ground.CRASH
    return Ground.DOUBT


def gist(text: str) -> str:
    """A refusal's text without what differs between two servers that mean the same: numbers, addresses, names."""
    return " ".join(_VARIABLE.sub("#", text[:_LONGEST].lower()).split())
