"""What routing needs to know of a request body: the model, whether to stream, the options that reload a runner.

The proxy must see the same `model` as the server behind it, or it would route by one model and run another; so this
rests on `json.go_json`, which reads JSON as Ollama does. Nearly every body is plain, though: keys as documented, none
twice, nothing behind the object; of those msgspec's view is the same and takes a fifth of the time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fleet.common.steps import Steps, finished
from fleet.protocol.go_duration import go_seconds
from fleet.protocol.json.go_json import LONG, MEMBERS, SMALL, Laborious, decode_text, members
from fleet.protocol.json.long_object import long_members
from fleet.protocol.json.value_span import Unreadable

NAME_BYTES: Final = 4096
"""A longer `model` (or other name) is unreadable: no valid name comes near."""
QUICK: Final = 512 * 1024
"""Bytes of a body that may be read at one go, by C code that takes a millisecond for them."""
_WHOLE: Final = frozenset(("options",))
_EMPTY = re.compile(rb"[\[{][ \t\r\n]*+[\]}]")
_RUNNER_INTEGERS: Final = frozenset(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"))
# A cheap look before the decoder is troubled; any of the names may hide behind an escape.
_MAY_HOLD_RUNNER_OPTION = re.compile(rb"num_|_gpu|use_mmap|\\")
_RUNNER_FLAGS: Final = frozenset(("use_mmap",))


@dataclass(slots=True)
class Peek:
    """What a body says, as Ollama would read it; None where it says nothing.

    `readable` is False when Ollama would (or might) refuse the body as a whole: then nothing else is set, and the
    request may go to any server so that the refusal is Ollama's own. `keep_alive` is in seconds, negative for ever.
    `options` holds the options that make a runner reload (`num_ctx`, ... and the top-level `shift`).
    """

    readable: bool = True
    model: str | None = None
    name: str | None = None
    from_: str | None = None
    source: str | None = None
    destination: str | None = None
    stream: bool | None = None
    keep_alive: float | None = None
    options: dict[str, object] = field(default_factory=dict)
    shift: bool | None = None
    prompt_empty: bool = True
    messages_empty: bool = True
    has_files: bool = False
    has_adapters: bool = False

    @property
    def is_load(self) -> bool:
        """No prompt and no messages: Ollama only loads the model."""
        return self.readable and self.prompt_empty and self.messages_empty

    @property
    def is_unload(self) -> bool:
        """A load request with `keep_alive: 0`: Ollama unloads the model."""
        return self.is_load and self.keep_alive == 0

    @property
    def asked(self) -> str:
        """The model asked for: `model`, else `name` (the older spelling that show, pull and delete still take)."""
        return self.model or self.name or ""

    def runner_options(self) -> dict[str, object]:
        """The options that decide whether a loaded runner fits, `shift` included."""
        return self.options if self.shift is None else {**self.options, "shift": self.shift}


class _Runner(msgspec.Struct, gc=False):
    """The runner options. Their keys are matched exactly, unlike those of the body itself."""

    num_ctx: msgspec.Raw = msgspec.Raw()
    num_batch: msgspec.Raw = msgspec.Raw()
    num_gpu: msgspec.Raw = msgspec.Raw()
    main_gpu: msgspec.Raw = msgspec.Raw()
    use_mmap: msgspec.Raw = msgspec.Raw()
    num_thread: msgspec.Raw = msgspec.Raw()
    draft_num_predict: msgspec.Raw = msgspec.Raw()


_ESCAPED_LETTER: Final = b"\\u00"
_plain = msgspec.json.Decoder(dict[str, msgspec.Raw])
_runner = msgspec.json.Decoder(_Runner)
_number = msgspec.json.Decoder(float)


def peek(body: bytes) -> Peek:
    """Read a body at one go. Never raises; anything Ollama would refuse gives `Peek(readable=False)`."""
    return _peek(body) if len(body) <= LONG else finished(peeking(body))


def peeking(body: bytes | bytearray) -> Steps[Peek]:
    """The same in steps, for bodies of any length."""
    if len(body) <= QUICK:
        with contextlib.suppress(Laborious):
            return _peek(bytes(body))
    found = Peek()
    try:
        for member in long_members(body, _READERS, _WHOLE):
            if member is None:
                yield
            elif (read := _READERS.get(member[0])) is not None:
                read(found, member[1])
    except (Unreadable, RecursionError, ValueError):
        return Peek(readable=False)
    return found


def _peek(body: bytes) -> Peek:
    """Read a body. Raises Laborious for some that are over `LONG` bytes."""
    plain = _peek_plain(body)
    if plain is not None:
        return plain
    found = Peek()
    try:
        for key, value in members(body, _READERS):
            if (read := _READERS.get(key)) is not None:
                read(found, value)
    except (Unreadable, RecursionError, ValueError):  # ValueError: a number beyond a double, which Go refuses too
        return Peek(readable=False)
    return found


def _peek_plain(body: bytes) -> Peek | None:
    """What a plain body says; None for one that has to be read as Go does, in order and without regard to case."""
    if len(body) > SMALL or _ESCAPED_LETTER in body:
        return None
    found = Peek()
    try:
        given = _plain.decode(body)
        for key, raw in given.items():
            known = _PLAIN_READERS.get(key)
            if known is not None:
                read, token = known
                if body.count(token) > 1:  # here twice, or inside something else
                    return None
                read(found, bytes(raw))
            elif not key.isascii() or key.lower() in _READERS:
                return None
    except (Unreadable, RecursionError, ValueError):
        return None
    return found if len(given) <= MEMBERS else None


def _text_into(attribute: str) -> Callable[[Peek, bytes], None]:
    def read(found: Peek, value: bytes) -> None:
        if value == b"null":
            return  # Go leaves a string as it was
        if value[0] != 0x22 or len(value) > NAME_BYTES:
            raise Unreadable
        setattr(found, attribute, decode_text(value))

    return read


def _read_stream(found: Peek, value: bytes) -> None:
    if value not in (b"true", b"false", b"null"):
        raise Unreadable
    found.stream = {b"true": True, b"false": False}.get(value)


def _read_shift(found: Peek, value: bytes) -> None:
    found.shift = {b"true": True, b"false": False}.get(value)


def _read_keep_alive(found: Peek, value: bytes) -> None:
    found.keep_alive = None
    if value[0] == 0x22 and len(value) <= 64:
        found.keep_alive = go_seconds(decode_text(value))
    elif value[0] in b"-0123456789" and len(value) <= 64:
        found.keep_alive = _number.decode(value)


def _read_options(found: Peek, value: bytes) -> None:
    if value == b"null":
        found.options = {}
    if value[0] != 0x7B or not _MAY_HOLD_RUNNER_OPTION.search(value):
        return
    given = _runner.decode(value)
    for key in _Runner.__struct_fields__:
        raw = bytes(getattr(given, key))
        if raw:
            # Go decodes a second "options" object into the first one's map, so they merge; null unsets.
            found.options.pop(key, None)
            _read_option(found.options, key, raw)


def _read_option(options: dict[str, object], key: str, raw: bytes) -> None:
    if key in _RUNNER_FLAGS and raw in (b"true", b"false"):
        options[key] = raw == b"true"
    if key in _RUNNER_INTEGERS and raw[0] in b"-0123456789" and len(raw) <= 64:
        number = _number.decode(raw)
        if abs(number) < 2**53:
            options[key] = int(number)


def _read_prompt(found: Peek, value: bytes) -> None:
    if value != b"null":
        found.prompt_empty = value == b'""'


def _read_messages(found: Peek, value: bytes) -> None:
    found.messages_empty = value == b"null" or (value[0] == 0x5B and _EMPTY.fullmatch(value) is not None)


def _read_files(found: Peek, value: bytes) -> None:
    found.has_files = _fills(found.has_files, value)


def _read_adapters(found: Peek, value: bytes) -> None:
    found.has_adapters = _fills(found.has_adapters, value)


def _fills(before: bool, value: bytes) -> bool:
    if value[0] != 0x7B:
        return before and value != b"null"
    return before or _EMPTY.fullmatch(value) is None


_READERS: Final[dict[str, Callable[[Peek, bytes], None]]] = {
    "model": _text_into("model"),
    "name": _text_into("name"),
    "from": _text_into("from_"),
    "source": _text_into("source"),
    "destination": _text_into("destination"),
    "stream": _read_stream,
    "shift": _read_shift,
    "keep_alive": _read_keep_alive,
    "options": _read_options,
    "prompt": _read_prompt,
    "messages": _read_messages,
    "files": _read_files,
    "adapters": _read_adapters,
}
_PLAIN_READERS: Final = {key: (read, b'"%b"' % key.encode()) for key, read in _READERS.items()}
"""Readers, and each key as it stands in a body."""
