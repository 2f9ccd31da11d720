"""How a streamed answer ended, as the audit log is told: by its last record, not by how that is spelt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.kit.fleets.fleet import Client
from web.asgi.audited_route import _Seen

HEAD = [(b"content-type", b"application/x-ndjson")]


async def outcome(pieces: Sequence[bytes], *, finished: bool) -> str:
    seen = _Seen(Client())
    await seen.start(200, HEAD)
    for piece in pieces:
        await seen.write(piece)
    if finished:
        await seen.finish()
    return seen.outcome


@pytest.mark.parametrize(
    "last",
    [
        [b'{"error":"disk full"}\n'],
        [b'{ "error" : "disk full" }\n'],
        [b'{"status":"pulling","error":"disk full"}\n'],
        [b'{"err', b'or":"disk full"', b"}\n"],
    ],
)
async def test_a_stream_whose_last_record_is_an_error_has_failed(last: list[bytes]) -> None:
    assert await outcome([b'{"status":"pulling"}\n', *last], finished=True) == "failed"


@pytest.mark.parametrize(
    "last",
    [[b'{"status":"success"}\n'], [b'{"status": "success", "total": 5}\n'], [b'{"status":"suc', b'cess"}', b"\n"]],
)
async def test_a_stream_that_said_success_is_done_though_its_client_leaves(last: list[bytes]) -> None:
    assert await outcome([b'{"status":"pulling"}\n', *last], finished=False) == "done"


@pytest.mark.parametrize(
    "last", [b'{"name":"success"}', b'{"status":"pulling"}\n', b'{"status":"success"', b"[1]", b""]
)
async def test_a_stream_that_did_not_get_to_its_end_is_cut(last: bytes) -> None:
    assert await outcome([last], finished=False) == "cut"
