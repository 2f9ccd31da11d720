"""The reference: a streaming proxy as anybody would write it with Quart-Trio, Hypercorn and httpx.

usage: python -m bench.proxies.naive PORT SERVER_URL...
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def make_app(servers: list[str]) -> QuartTrio:
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    client = httpx.AsyncClient(timeout=None, limits=UNLIMITED)
    turns = itertools.cycle(servers)

    @app.route("/<path:path>", methods=["GET", "POST"])
    async def proxy(path: str) -> Response:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        outgoing = client.build_request(
            request.method, f"{next(turns)}/{path}", headers=headers, content=await request.get_data()
        )
        answer = await client.send(outgoing, stream=True)

        async def relay() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            finally:
                await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        return Response(relay(), answer.status_code, kept)

    return app


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.backlog = 4096
    trio.run(serve, make_app(sys.argv[2:]), config)
