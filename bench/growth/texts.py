"""Files and messages: configuration, keys, websocket packets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from bench.growth.measure import Case
from fleet.config.live.yaml_writer import DASHED
from fleet.config.loading.yaml_reader import read_json, read_text
from fleet.config.schema.problems import ConfigError
from fleet.protocol.go_duration import go_seconds
from fleet.security.api_keys import read_keys
from web.live.engine_io import BadPacket
from web.live.socketio import decoded

_KIB: Final = 1024


def _refused(read: Callable[[str], object]) -> Callable[[str], None]:
    def run(text: str) -> None:
        with contextlib.suppress(ConfigError, ValueError, BadPacket):
            read(text)

    return run


_yaml = _refused(lambda text: read_text(text, "a.yml"))
_json = _refused(lambda text: read_json(text, "a.json"))
_keys = _refused(read_keys)
_packet = _refused(decoded)

CASES: Final = (
    Case("yaml, brackets", 64 * _KIB, lambda size: "a: " + "[" * size, _yaml),
    Case("yaml, one flat list", 16 * _KIB, lambda size: "a: [" + "1," * (size // 2) + "]", _yaml),
    Case("yaml, keys", 16 * _KIB, lambda size: "".join(f"k{n}:\n" for n in range(size // 6)), _yaml),
    Case("yaml, aliases", 16 * _KIB, lambda size: "a: &a 1\nb: [" + "*a ," * (size // 4) + "]", _yaml),
    Case("yaml, a string without an end", 64 * _KIB, lambda size: 'a: "' + "\\n" * (size // 2), _yaml),
    Case("yaml, a long number", 64 * _KIB, lambda size: "a: " + "9" * size, _yaml),
    Case("yaml, colons and comments", 64 * _KIB, lambda size: "a" + ":#" * (size // 2), DASHED.search),
    Case("yaml, comments behind a key", 64 * _KIB, lambda size: "a:\n" + " #x\n" * (size // 4), DASHED.search),
    Case("yaml, spaces", 64 * _KIB, lambda size: " " * size, DASHED.search),
    Case("json file, brackets", 64 * _KIB, lambda size: '{"a":' + "[" * size, _json),
    Case("json file, a long number", 64 * _KIB, lambda size: '{"a":' + "9" * size + "}", _json),
    Case("keys file, lines", 64 * _KIB, lambda size: "\n" * size, _keys),
    Case("keys file, a string without an end", 64 * _KIB, lambda size: '{"a":"' + "\\n" * (size // 2), _keys),
    Case("packet, digits", 64 * _KIB, lambda size: "2" + "1" * size, _packet),
    Case("packet, namespaces", 64 * _KIB, lambda size: "2/" + "/" * size, _packet),
    Case("packet, brackets", 64 * _KIB, lambda size: "2" + "[" * size, _packet),
    Case("duration", 32, lambda size: "1h" * (size // 2), go_seconds),
)
