"""What a profile asks of the simulated server, as a client meets it over real sockets."""

from __future__ import annotations

import trio

from fleet.simulator import Profile
from tests.kit.clients.raw import ask_once, chunks, json_of, parse
from tests.kit.fleets.tcp import TcpSim, sim_server
from web.simulator.engine.errors import NO_MEMORY, RUNNER_STOPPED

FAST = {"load_seconds": 0.02, "tokens_per_second": 5000.0, "prefill_per_second": 100_000.0}


async def ask(sim: TcpSim, prompt: str, **more: object) -> bytes:
    body = {"model": "llama3:8b", "prompt": prompt, **more}
    return await ask_once(await trio.open_tcp_stream("127.0.0.1", sim.port), "POST", "/api/generate", body)


async def test_a_poisonous_prompt_is_a_500_and_good_ones_go_on() -> None:
    profile = Profile(**FAST, poison="DIE")  # type: ignore[arg-type]
    with trio.fail_after(60):
        async with sim_server(profile=profile) as sim:
            assert json_of(await ask(sim, "please DIE")) == (500, {"error": RUNNER_STOPPED})
            assert parse(await ask(sim, "please live"))[0] == 200
            assert sim.host.server.loads_begun == 2


async def test_a_load_that_runs_out_of_memory_says_so() -> None:
    profile = Profile(**FAST, failing_loads=1.0)  # type: ignore[arg-type]
    with trio.fail_after(60):
        async with sim_server(profile=profile) as sim:
            assert json_of(await ask(sim, "hello")) == (500, {"error": NO_MEMORY})


async def test_a_context_that_shrank_shows_in_the_list_of_loaded_models() -> None:
    profile = Profile(**FAST, vram=6 * 10**9, num_ctx=32_768, bytes_per_token=100_000)  # type: ignore[arg-type]
    with trio.fail_after(60):
        async with sim_server(profile=profile) as sim:
            await ask(sim, "hello")
            stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
            row = json_of(await ask_once(stream, "GET", "/api/ps"))[1]["models"][0]
            assert row["context_length"] == 8192


async def test_streams_that_slow_each_other_down_all_reach_their_end() -> None:
    profile = Profile(**{**FAST, "tokens_per_second": 400.0}, slots=4, batch_cost=1.0, slot_caches=True)  # type: ignore[arg-type]
    answers: list[bytes] = []

    async def one(prompt: str) -> None:
        answers.append(await ask(sim, prompt, options={"num_predict": 40}))

    with trio.fail_after(60):
        async with sim_server(profile=profile) as sim:
            async with trio.open_nursery() as nursery:
                for prompt in ("one", "two", "three"):
                    nursery.start_soon(one, prompt)
            assert [len(chunks(answer.partition(b"\r\n\r\n")[2])) for answer in answers] == [41, 41, 41]
            stats = json_of(await ask(sim, "four", options={"num_predict": 4}, stream=False))[1]
            assert stats["eval_count"] == 4
