"""Big uploads through the fleet."""

from __future__ import annotations

import hashlib

import trio

from tests.kit.clients.lanes import both_lanes, connect
from tests.kit.fleets.served import served

pytestmark = both_lanes


async def test_an_existing_blob_is_not_uploaded_again() -> None:
    """A client that asks first gets the server's own answer instead of 100, and keeps its gigabytes."""
    data = b"x" * 1000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    async with served("a") as fleet, fleet.client() as http:
        assert (await http.post(f"/api/blobs/{digest}", content=data)).status_code == 201
        async with await connect(fleet.url) as stream:
            head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000000\r\n"
            await stream.send_all(head.encode() + b"Expect: 100-continue\r\n\r\n")
            with trio.fail_after(20):
                answer = await stream.receive_some(1000)
        assert answer.startswith(b"HTTP/1.1 200 ")
