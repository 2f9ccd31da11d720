"""The parts of a body that make up its prompt, as raw JSON, and how long its answer may get: for who expects costs.

What it is wrong about: keys in other letters (Ollama folds their case) and the first of two equal ones are overlooked,
and a compressed body says nothing. That costs an expectation, never an answer: the body itself goes on as it came.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from fleet.protocol.call import Headers

T = TypeVar("T")

LONGEST: Final = 512 * 1024
"""Bytes of a body that are looked at in one go, by C code that takes a tenth of a millisecond for them."""
SESSION_HEADERS: Final = (b"x-session-id", b"x-openwebui-chat-id")
"""Headers by which clients name a conversation, the first that is there counts."""
LONGEST_SESSION: Final = 1024
_FIELDS: Final = ("tools", "system", "instructions", "context", "messages", "input", "prompt")
_MOST_TOKENS: Final = 10_000_000
_NOTHING: Final = msgspec.Raw()
"""What a key holds that is not there: told by its identity, which is all that most keys of a short body cost."""


class _Options(msgspec.Struct, gc=False):
    num_predict: msgspec.Raw = _NOTHING


class _Metadata(msgspec.Struct, gc=False):
    user_id: msgspec.Raw = _NOTHING


class _Body(msgspec.Struct, gc=False):
    tools: msgspec.Raw = _NOTHING
    system: msgspec.Raw = _NOTHING
    instructions: msgspec.Raw = _NOTHING
    context: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    options: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING
    prompt_cache_key: msgspec.Raw = _NOTHING
    max_tokens: msgspec.Raw = _NOTHING
    max_completion_tokens: msgspec.Raw = _NOTHING
    max_output_tokens: msgspec.Raw = _NOTHING


class PromptParts(msgspec.Struct, gc=False):
    """What was found. `fields`: raw JSON values by their names; `session`: how the client calls the conversation.

    `session_kind` says where it did; both are empty where it did not. `most_tokens`: of the answer; None: no limit.
    """

    fields: dict[str, bytes] = msgspec.field(default_factory=dict)
    session_kind: str = ""
    session: str = ""
    most_tokens: int | None = None


_body = msgspec.json.Decoder(_Body)
_options = msgspec.json.Decoder(_Options)
_metadata = msgspec.json.Decoder(_Metadata)
_text = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(int)


def prompt_parts(body: bytes, headers: Headers = ()) -> PromptParts:
    """What a body and its headers say. Never raises: what cannot be read, or is too long, says nothing."""
    found = PromptParts()
    for name, value in headers:
        if name in SESSION_HEADERS and value and not found.session:
            found.session_kind, found.session = name.decode(), value[:LONGEST_SESSION].decode("latin-1")
    if len(body) > LONGEST:
        return found
    try:
        said = _body.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return found
    for part in _FIELDS:
        raw = getattr(said, part)
        if raw is not _NOTHING and (data := bytes(raw)) != b"null":
            found.fields[part] = data
    if not found.session:
        _read_session(found, said)
    found.most_tokens = _most_tokens(said)
    return found


def _read_session(found: PromptParts, said: _Body) -> None:
    """OpenAI's `prompt_cache_key`, else Anthropic's `metadata.user_id`, which names a person and a session."""
    user = _part(_metadata, said.metadata)
    user_id = user.user_id if user is not None else _NOTHING
    for kind, raw in (("prompt_cache_key", said.prompt_cache_key), ("user_id", user_id)):
        if raw is not _NOTHING and len(bytes(raw)) <= LONGEST_SESSION and (text := _part(_text, raw)):
            found.session_kind, found.session = kind, text
            return


def _most_tokens(said: _Body) -> int | None:
    options = _part(_options, said.options)
    least: int | None = None
    limits = (said.max_tokens, said.max_completion_tokens, said.max_output_tokens)
    for raw in (*limits, options.num_predict if options is not None else _NOTHING):
        number = None if raw is _NOTHING else _part(_number, raw)
        if number is not None and 0 <= number <= _MOST_TOKENS:
            least = number if least is None else min(least, number)
    return least


def _part(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    """A value of that type; None for anything else."""
    if raw is _NOTHING or (data := bytes(raw)) == b"null":
        return None
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
