"""The simulated server's scheduling, case by case."""

from __future__ import annotations

import math
import random

import pytest

from fleet.simulator import (
    Ask,
    Busy,
    Profile,
    SimServer,
    SimulatedJob,
    Stage,
    model_file,
    ps_rows,
    stats_of,
    tags_rows,
    work_for,
)

GB = 10**9
A, B, C = (model_file(name, 4 * GB) for name in ("a", "b", "c"))


def make(**profile: object) -> SimServer:
    plain: dict[str, object] = {"jitter": 0.0, "load_seconds": 2.0, "vram": 24 * GB}
    return SimServer(Profile(**{**plain, **profile}), (A, B, C), random.Random(1))  # type: ignore[arg-type]


def ask(server: SimServer, now: float, model: object = A, *, prompt: str = "hello", **more: object) -> SimulatedJob:
    wanted = Ask(prompt, {"num_predict": 50, **more.pop("options", {})}, **more)  # type: ignore[arg-type,dict-item]
    return server.submit(work_for(model, server.profile, wanted), now)  # type: ignore[arg-type]


def run_dry(server: SimServer, until: float = 250.0) -> None:
    while server.next_event <= until:
        server.advance(server.next_event)


def test_a_cold_request_loads_evaluates_and_decodes() -> None:
    server = make(tokens_per_second=50, prefill_per_second=1000)
    job = ask(server, 0.0, prompt="x" * 4000)
    assert server.loading is A
    run_dry(server)
    stats = stats_of(job)
    assert job.stage is Stage.DONE
    assert stats.load == pytest.approx(2.001e9)
    assert stats.prompt_eval == pytest.approx(1e9)
    assert stats.eval == pytest.approx(1e9)
    assert (stats.prompt_tokens, stats.tokens, stats.wait) == (1000, 50, 0)


def test_loads_are_serial_but_warm_requests_pass_by() -> None:
    server = make()
    warm = ask(server, 0.0)
    run_dry(server)
    first, second, passing = ask(server, 10.0, B), ask(server, 10.0, C), ask(server, 10.0, A)
    assert (first.stage, second.stage, passing.stage) == (Stage.LOADING, Stage.PENDING, Stage.PREFILL)
    server.advance(12.0)
    assert (second.stage, second.wake_at) == (Stage.LOADING, 14.0)
    assert warm.stage is Stage.DONE


def test_leaving_during_a_load_kills_it_and_it_restarts_for_the_next() -> None:
    server = make()
    first, second = ask(server, 0.0), ask(server, 0.5)
    server.leave(first, 1.5)
    assert (second.stage, second.wake_at) == (Stage.LOADING, 3.5)
    assert server.loads_begun == 2


def test_another_context_waits_for_an_idle_runner_and_blocks_the_scheduler() -> None:
    server = make(slots=2)
    ask(server, 0.0)
    server.advance(2.0)
    odd = ask(server, 2.1, options={"num_ctx": 512})
    behind = ask(server, 2.1, B)
    for step in range(5):
        assert ask(server, 2.2 + step * 0.5).stage is not Stage.PENDING
        assert odd.stage is Stage.PENDING
        assert behind.stage is Stage.PENDING
    run_dry(server)
    assert odd.stage is Stage.DONE
    assert odd.attached_at < behind.attached_at
    assert ps_rows(server, 20.0, 20.0)[-1]["context_length"] == 512


def test_the_idle_runner_with_the_shortest_keep_alive_is_evicted() -> None:
    server = make(max_loaded=2)
    ask(server, 0.0, A, keep_alive=1000.0)
    run_dry(server)
    ask(server, 10.0, B, keep_alive=500.0)
    run_dry(server)
    ask(server, 20.0, C)
    run_dry(server)
    assert set(server.runners) == {A.weights, C.weights}


def test_a_model_waits_for_room_while_all_others_are_busy() -> None:
    server = make(max_loaded=1)
    ask(server, 0.0)
    server.advance(2.0)
    waiting = ask(server, 2.0, B)
    assert server.pending == 1
    run_dry(server)
    assert waiting.stage is Stage.DONE
    assert set(server.runners) == {B.weights}


def test_a_model_larger_than_the_memory_is_loaded_alone_and_partly() -> None:
    server = make(vram=3 * GB)
    ask(server, 0.0)
    server.advance(2.0)
    row = ps_rows(server, 2.0, 2.0)[0]
    assert (row["size"], row["size_vram"]) == (4 * GB, 3 * GB)


@pytest.mark.parametrize(("stay", "gone_at"), [(5.0, 10.0), (0.0, 5.0), (300.0, 305.0)])
def test_an_idle_model_leaves_when_its_keep_alive_is_over(stay: float, gone_at: float) -> None:
    server = make(load_seconds=4.0)
    job = ask(server, 0.0, prompt="", keep_alive=stay)
    server.advance(4.0)
    assert job.stage is Stage.DONE
    gone_at -= 1.0
    server.advance(math.nextafter(gone_at, 0))
    assert bool(server.runners) is (stay > 0)
    server.advance(gone_at)
    assert not server.runners


def test_the_last_request_decides_how_long_a_model_stays() -> None:
    server = make()
    ask(server, 0.0, prompt="", keep_alive=1000.0)
    server.advance(2.0)
    ask(server, 3.0, prompt="", keep_alive=10.0)
    server.advance(13.0)
    assert not server.runners


def test_a_keep_alive_for_ever_is_for_ever() -> None:
    server = make()
    ask(server, 0.0, prompt="", keep_alive=math.inf)
    server.advance(1e9)
    assert server.runners
    assert ps_rows(server, 1e9, 1e9)[0]["expires_at"] > "2290"


def test_unloading_a_busy_model_waits_for_it() -> None:
    server = make()
    job = ask(server, 0.0)
    server.advance(2.5)
    server.unload(A, 2.5)
    assert server.runners
    run_dry(server)
    assert job.stage is Stage.DONE
    assert not server.runners


def test_copies_share_one_runner() -> None:
    server = make()
    twin = server.shelf.copy(A, "twin", 0.0)
    ask(server, 0.0)
    server.advance(2.0)
    assert ask(server, 2.0, twin).stage is not Stage.PENDING
    assert [row["name"] for row in ps_rows(server, 2.0, 2.0)] == ["a:latest"]
    assert {row["name"] for row in tags_rows(server)} >= {"a:latest", "twin:latest"}


def test_a_repeated_prompt_is_not_evaluated_again() -> None:
    server = make(prefill_per_second=1000)
    first = ask(server, 0.0, prompt="y" * 4000)
    run_dry(server)
    again = ask(server, 10.0, prompt="y" * 4000)
    longer = ask(server, 10.0, prompt="y" * 4000 + "z" * 400)
    run_dry(server)
    assert (first.evaluated, again.evaluated) == (1000, 1)
    assert longer.evaluated == pytest.approx(100, abs=16)
    assert stats_of(again).prompt_tokens == 1000


def test_a_reload_forgets_the_prefixes() -> None:
    server = make()
    ask(server, 0.0, prompt="y" * 400, keep_alive=0.0)
    run_dry(server)
    again = ask(server, 10.0, prompt="y" * 400)
    run_dry(server)
    assert again.evaluated == 100


def test_the_pending_queue_is_bounded_but_the_warm_one_is_not() -> None:
    server = make(max_queue=2)
    ask(server, 0.0)
    ask(server, 0.0)
    ask(server, 0.0)
    with pytest.raises(Busy):
        ask(server, 0.0, B)
    server.advance(2.0)
    assert all(ask(server, 2.0).stage is Stage.QUEUED for _ in range(100))


def test_a_crash_fails_every_job_of_the_runner_and_the_next_request_reloads() -> None:
    server = make()
    running, queued = ask(server, 0.0), ask(server, 0.0)
    server.advance(2.5)
    assert running.runner is not None
    server.crash(running.runner, 2.5)
    assert (running.stage, queued.stage) == (Stage.FAILED, Stage.FAILED)
    assert ask(server, 3.0).stage is Stage.LOADING


def test_a_held_job_keeps_its_slot_until_its_reader_is_done() -> None:
    server = make()
    slow = ask(server, 0.0, held=True)
    server.advance(2.0)
    next_one = ask(server, 2.0)
    server.advance(60.0)
    assert (slow.stage, next_one.stage) == (Stage.DECODE, Stage.QUEUED)
    server.finish(slow, 60.0)
    assert (slow.stage, next_one.stage) == (Stage.DONE, Stage.PREFILL)
    stats = stats_of(slow)
    assert stats.total == stats.load + stats.wait + stats.prompt_eval + stats.eval == pytest.approx(60e9)


def test_embedding_models_have_one_slot() -> None:
    embed = model_file("embed", GB)
    server = make(slots=4)
    server.shelf.put(embed)
    ask(server, 0.0, embed)
    server.advance(2.0)
    assert server.runners[embed.weights].slots == 1
