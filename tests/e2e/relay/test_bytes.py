"""What goes through byte for byte, and what every answer says besides."""

from __future__ import annotations

import re

import trio

from tests.e2e.raw_upstream import in_front_of_raw
from tests.e2e.relay.product import SWIFT, last_seen, product
from tests.e2e.support import (
    EMBED,
    MODELS,
    ROUTES,
    TURN,
    Answer,
    ask,
    connect,
    first_answer,
    inference_seen,
    read_to_the_end,
    understood,
    until,
)
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import QUICK, served
from tests.kit.fleets.tcp import sim_server


def without_times(body: bytes) -> bytes:
    return re.sub(
        rb'"(created_at|[a-z_]*duration|created|id|created_at|completed_at|item_id)":("[^"]*"|\d+)', b"", body
    )


@both_lanes
async def test_bodies_go_both_ways_byte_for_byte() -> None:
    async with product() as fleet:
        odd = (
            b'  {"model" : "llama3:8b",\n"messages":[{"role":"user",'
            b'"content":"caf\\u00e9 \xe2\x82\xac \xf0\x9f\x98\x80"}] , "x":1e2}\n\n  '
        )
        for path in ("/api/chat", "/v1/chat/completions"):
            await ask(fleet.url, "POST", path, odd, "Content-Type: text/plain")
            assert last_seen(fleet).body == odd
            assert last_seen(fleet).header("content-type") == "text/plain"
        for route in ROUTES:
            if route.fields is None:
                continue
            for stream in (False, True) if route.streams else (None,):
                body = {**route.fields, "stream": stream, "options": {"seed": 7}}
                await ask(fleet.sims["a"].url, "POST", route.plain_path, body)  # warm: load times are left out when 0
                direct = await ask(fleet.sims["a"].url, "POST", route.plain_path, body)
                proxied = await ask(fleet.url, "POST", route.path, body)
                assert without_times(proxied.body) == without_times(direct.body), route
                assert proxied.headers["content-type"] == direct.headers["content-type"]


@both_lanes
async def test_not_a_byte_of_an_answer_is_changed() -> None:
    pieces = [
        b'{"message":{"content":"\\u2028 \xe2\x82\xac"},"done":false}\n',
        b'{ "odd" : 1.0e5,  "error" : null}\r\n{"x":"\xff\xfe"}\n',
        b'{"done":true}\n',
    ]
    async with in_front_of_raw() as (fleet, upstream):
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nX-Odd: Yes\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunked = [b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        upstream.answer = [head, *chunked, b"0\r\nTrailer: x\r\n\r\n"]
        answer = await ask(fleet.url, "POST", "/api/chat", {"model": "m", "messages": TURN})
        assert answer.body == b"".join(pieces)
        assert answer.headers["x-odd"] == "Yes"
        split = b"".join(chunked)
        upstream.answer = [head, *(split[i : i + 1] for i in range(len(split))), b"0\r\n\r\n"]
        assert (await ask(fleet.url, "POST", "/api/chat", {"model": "m"})).body == b"".join(pieces)
        plain = b"\x00\x01 not json at all \xff"
        upstream.answer = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(plain), plain)]
        assert (await ask(fleet.url, "POST", "/api/embed", {"model": "m"})).body == plain
        upstream.answer = [b"HTTP/1.0 200 OK\r\n\r\n" + plain]
        assert (await ask(fleet.url, "POST", "/api/embed", {"model": "m"})).body == plain


@both_lanes
async def test_a_server_sees_its_own_host_and_nothing_that_was_meant_for_us() -> None:
    private = (
        "Authorization: Bearer secret",
        "X-Api-Key: secret",
        "Cookie: session=secret",
        "Origin: http://localhost:3000",
        "Referer: http://localhost:3000/",
        "X-Priority: 3",
        "Proxy-Authorization: secret",
        "X-Custom: kept",
        "User-Agent: GitHubCopilotChat/1.0",
        "Accept-Encoding: gzip",
        "Connection: X-Hop",
        "X-Hop: secret",
    )
    async with product() as fleet:
        for route in ROUTES:
            raw = route.request().replace(b"\r\n", ("\r\n" + "\r\n".join(private) + "\r\n").encode(), 1)
            async with await connect(fleet.url) as stream:
                await stream.send_all(
                    raw.replace(b"Host: localhost\r\n", b"Host: my-fleet.local\r\nConnection: close\r\n")
                )
                with trio.fail_after(20):
                    assert understood(await read_to_the_end(stream)).status == 200
            seen = last_seen(fleet)
            assert seen.header("host") == fleet.sims["a"].url.removeprefix("http://")
            assert "secret" not in str(seen.headers)
            for name in ("origin", "referer", "cookie", "authorization", "x-api-key", "x-priority", "accept-encoding"):
                assert seen.header(name) is None, name
            assert seen.header("x-custom") == "kept"
            assert seen.header("user-agent") == "GitHubCopilotChat/1.0"


@both_lanes
async def test_a_servers_own_key_is_sent_to_it() -> None:
    async with product() as fleet, sim_server(MODELS, QUICK, id="other") as other:
        added = {"id": "keyed", "url": other.url, "apiKey": "its-own-key"}
        answer = await ask(fleet.orchestrator_url, "POST", "/api/orchestrator/servers/add", added)
        assert answer.json()["success"] is True
        assert "its-own-key" not in answer.text
        for client in ((), ("Authorization: Bearer other",)):
            await ask(fleet.url, "POST", "/v1/embeddings--keyed", {"model": EMBED, "input": "x"}, *client)
            assert inference_seen(other.host)[-1].header("authorization") == "Bearer its-own-key"


@both_lanes
async def test_request_ids_are_kept_if_sane_and_come_back() -> None:
    async with product() as fleet:
        route = ROUTES[1]
        for sane in ("abc-123_X.y:z", "a" * 128):
            answer = await ask(fleet.url, "POST", route.path, route.fields, f"X-Request-Id: {sane}")
            assert answer.headers["x-request-id"] == last_seen(fleet).header("x-request-id") == sane
        for insane in ("a b", "a" * 129, "<script>", "é", ""):
            answer = await ask(fleet.url, "POST", route.path, route.fields, f"X-Request-Id: {insane}")
            given = answer.headers["x-request-id"]
            assert given != insane
            assert re.fullmatch(r"[A-Za-z0-9._:-]{8,128}", given)
            assert last_seen(fleet).header("x-request-id") == given
        for method, path in (("GET", "/"), ("GET", "/api/tags"), ("GET", "/nowhere"), ("OPTIONS", "/api/chat")):
            answer = await ask(fleet.url, method, path, None, "X-Request-Id: mine")
            assert answer.headers["x-request-id"] == "mine"


@both_lanes
async def test_answers_say_who_made_them_after_how_many_attempts_and_how_long_they_queued() -> None:
    async with served("a", "b", models=MODELS, profile=SWIFT) as fleet:
        fleet.sims["a"].host.faults.set("reset-before-headers")
        for _ in range(2):
            answer = await ask(fleet.url, "POST", "/api/chat", ROUTES[1].fields)
            assert (answer.status, answer.headers["x-fleet-server"]) == (200, "b")
            assert answer.headers["x-fleet-attempts"] in ("1", "2")
            assert 0 <= int(answer.headers["x-fleet-queue-ms"]) < 1000
        fleet.system.pause(True)
        answers: list[Answer] = []

        async def late() -> None:
            answers.append(await ask(fleet.url, "POST", "/api/chat--b", ROUTES[1].fields))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            await until(lambda: fleet.system.scheduler.tickets)
            waits = trio.current_time()
            await until(lambda: trio.current_time() - waits > 0.05)
            fleet.system.pause(False)
        assert int(answers[0].headers["x-fleet-queue-ms"]) >= 50
        assert answers[0].headers["x-fleet-attempts"] == "1"


@both_lanes
async def test_an_http_1_0_client_gets_unframed_answers() -> None:
    async with product() as fleet:
        for route in (*ROUTES[:2], ROUTES[4]):
            assert route.fields is not None
            answer = await ask(fleet.url, "POST", route.path, {**route.fields, "stream": True}, version="1.0")
            assert answer.status == 200
            assert "transfer-encoding" not in answer.headers
            assert b'"done":true' in answer.body or answer.body.endswith(b"data: [DONE]\n\n")
        assert (await ask(fleet.url, "GET", "/", version="1.0")).body == b"Ollama is running"


@both_lanes
async def test_one_connection_serves_many_requests_one_after_the_other() -> None:
    async with product() as fleet, await connect(fleet.url) as stream:
        for _ in range(3):
            for route in ROUTES:
                await stream.send_all(route.request(stream=route.streams))
                assert (await first_answer(stream)).status == 200
        assert len(inference_seen(fleet.sims["a"].host)) == 3 * len(ROUTES)
