"""What the simulated server does as Ollama does it, where a profile asks for that."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.simulator import (
    Ask,
    ForeignClient,
    JobFailure,
    Profile,
    SimServer,
    SimulatedJob,
    Stage,
    model_file,
    ps_rows,
    stats_of,
    work_for,
)
from fleet.simulator.slot_cache import SlotCaches, common_prefix

GB = 10**9
A, B, C = (model_file(name, 4 * GB) for name in ("a", "b", "c"))


def make(**profile: object) -> SimServer:
    plain: dict[str, object] = {"jitter": 0.0, "load_seconds": 2.0, "prefill_per_second": 1000.0}
    return SimServer(Profile(**{**plain, **profile}), (A, B, C), random.Random(1))  # type: ignore[arg-type]


def ask(server: SimServer, now: float, model: object = A, *, prompt: str = "hello", tokens: int = 50) -> SimulatedJob:
    return server.submit(work_for(model, server.profile, Ask(prompt, {"num_predict": tokens})), now)  # type: ignore[arg-type]


def run_dry(server: SimServer, until: float = 250.0) -> None:
    while server.next_event <= until:
        server.advance(server.next_event)


# ---- loads


def test_a_load_takes_longer_for_a_larger_file_and_from_the_disk() -> None:
    server = make(load_rate=2 * GB, cold_load_factor=3.0, max_loaded=1, page_cache_seconds=100.0)
    cold = ask(server, 0.0)
    assert cold.wake_at == pytest.approx(3 * (2.0 + 2.0))
    run_dry(server, 20.0)
    ask(server, 30.0, B)  # evicts it, and leaves its file in the page cache
    run_dry(server, 50.0)
    assert ask(server, 60.0).wake_at == pytest.approx(60.0 + 4.0)


def test_a_file_leaves_the_page_cache_when_it_was_not_in_memory_for_long() -> None:
    server = make(cold_load_factor=3.0, page_cache_seconds=100.0, keep_alive=10.0)
    server.submit(work_for(A, server.profile, Ask("x", keep_alive=10.0)), 0.0)
    run_dry(server, 30.0)
    assert not server.runners
    gone = 30.0
    assert server.load_seconds(A, gone) == 2.0
    assert server.load_seconds(A, gone + 101.0) == 6.0


def test_a_load_that_runs_out_of_memory_fails_after_its_time_and_the_next_one_begins() -> None:
    server = make(failing_loads=1.0)
    first, second = ask(server, 0.0), ask(server, 0.1, B)
    run_dry(server)
    assert (first.stage, first.failure, first.finished_at) == (Stage.FAILED, JobFailure.MEMORY, 2.0)
    assert second.finished_at == 4.0
    assert not server.runners


# ---- decoding in company


def test_streams_slow_each_other_down_while_they_are_together() -> None:
    server = make(slots=2, batch_cost=0.5, tokens_per_second=10.0)
    first = ask(server, 0.0, tokens=100)
    server.advance(first.wake_at)
    server.advance(first.wake_at)
    began = first.decode_at
    assert first.ends_at == pytest.approx(began + 10.0)
    second = ask(server, began + 5.0, prompt="another", tokens=20)
    run_dry(server)
    assert stats_of(second).eval == pytest.approx(20 * 0.15e9)
    together = second.ends_at - second.decode_at
    assert first.ends_at - began == pytest.approx(10.0 + together * (1 - 1 / 1.5))
    assert first.finished_at == first.ends_at


def test_a_lone_stream_is_as_fast_as_if_company_cost_nothing() -> None:
    ends = []
    for cost in (0.0, 0.5):
        server = make(slots=4, batch_cost=cost)
        job = ask(server, 0.0)
        run_dry(server)
        ends.append(job.finished_at)
    assert ends[0] == ends[1]


@given(gaps=st.lists(st.floats(0, 3), min_size=1, max_size=12), cost=st.sampled_from([0.0, 0.2, 1.0]))
def test_whatever_the_pace_every_token_is_paid_for(gaps: list[float], cost: float) -> None:
    server = make(slots=3, batch_cost=cost, tokens_per_second=20.0)
    now, jobs = 0.0, []
    for gap in gaps:
        now += gap
        jobs.append(ask(server, now, prompt=f"number {now}", tokens=30))
    run_dry(server, 1000.0)
    for job in jobs:
        assert job.stage is Stage.DONE
        seconds = job.ends_at - job.decode_at
        assert 30 * 0.05 - 1e-6 <= seconds <= 30 * 0.05 * (1 + 2 * cost) + 1e-6


# ---- what slots remember


def test_a_chat_finds_its_slot_again_and_is_still_told_the_whole_count() -> None:
    server = make(slots=2, slot_caches=True)
    opening = "a long beginning of a talk " * 40
    first = ask(server, 0.0, prompt=opening, tokens=10)
    run_dry(server, 20.0)
    ask(server, 30.0, prompt="something else entirely " * 40)
    run_dry(server, 50.0)
    told = opening + "".join(first.work.tokens) + " and what then?"
    again = ask(server, 60.0, prompt=told)
    run_dry(server)
    stats = stats_of(again)
    assert again.cached_tokens > 0.95 * again.work.prompt_tokens
    assert stats.prompt_tokens == again.work.prompt_tokens
    assert stats.prompt_eval < 0.1 * stats_of(first).prompt_eval


@pytest.mark.parametrize(("parked", "kept"), [(0, False), (10_000, True)])
def test_a_text_that_lost_its_slot_is_found_where_there_is_memory_to_park_it(parked: int, kept: bool) -> None:
    server = make(slots=1, slot_caches=True, parked_tokens=parked)
    prompt = "the first of two talks " * 40
    ask(server, 0.0, prompt=prompt)
    run_dry(server, 20.0)
    ask(server, 30.0, prompt="the other one, quite unlike it " * 40)
    run_dry(server, 50.0)
    again = ask(server, 60.0, prompt=prompt)
    assert (again.cached_tokens == again.work.prompt_tokens) is kept


def test_slots_know_nothing_after_their_runner_was_loaded_anew() -> None:
    server = make(slots=1, slot_caches=True)
    prompt = "the same words as before " * 40
    ask(server, 0.0, prompt=prompt)
    run_dry(server, 20.0)
    server.unload(A, 30.0)
    again = ask(server, 40.0, prompt=prompt)
    run_dry(server)
    assert again.cached_tokens == 0


@given(one=st.text("ab", max_size=300), other=st.text("ab", max_size=300), same=st.text("ab", max_size=100))
def test_the_common_beginning_is_the_longest_one(one: str, other: str, same: str) -> None:
    length = common_prefix(same + one, same + other)
    assert (same + one)[:length] == (same + other)[:length]
    assert (same + one)[length : length + 1] != (same + other)[length : length + 1] or length == len(same) + min(
        len(one), len(other)
    )


@given(st.lists(st.tuples(st.booleans(), st.text("ab", min_size=1, max_size=40)), max_size=60), st.integers(1, 3))
def test_no_slot_is_given_twice_and_parking_stays_within_its_room(steps: list[tuple[bool, str]], slots: int) -> None:
    caches = SlotCaches(slots, parked_tokens=20)
    busy: dict[int, str] = {}
    for wants, text in steps:
        if wants and len(busy) < slots:
            expected = caches.longest(text)
            slot, known = caches.take(text)
            assert slot not in busy
            assert known <= expected <= len(text)
            busy[slot] = text
        elif busy:
            slot, text = busy.popitem()
            caches.free(slot, text)
        assert caches.parked <= 20 * 4


# ---- who stays, and with what context


def test_the_keep_alive_of_the_last_request_decides_who_is_evicted() -> None:
    server = make(max_loaded=2)
    for model, now, stay in ((A, 0.0, 50.0), (B, 10.0, 100.0), (A, 20.0, 1000.0)):
        server.submit(work_for(model, server.profile, Ask("x", keep_alive=stay)), now)
        run_dry(server, now + 9.0)
    ask(server, 30.0, C)
    assert set(server.runners) == {A.weights}
    assert server.loading is C


def test_a_context_that_nobody_named_shrinks_to_what_memory_holds() -> None:
    server = make(slots=2, vram=8 * GB, num_ctx=32_768, bytes_per_token=100_000)
    ask(server, 0.0)
    run_dry(server, 5.0)
    assert ps_rows(server, 5.0, 5.0)[0]["context_length"] == 16_384
    assert ask(server, 6.0).stage is not Stage.PENDING, "who names none takes what there is"
    run_dry(server, 20.0)
    named = work_for(A, server.profile, Ask("x", {"num_ctx": 32_768}))
    server.submit(named, 30.0)
    assert server.loading is A, "who names one does not"


@pytest.mark.parametrize(("family", "slots"), [("llama", 4), ("qwen3vl", 1), ("mllama", 1), ("nomic-bert", 4)])
def test_some_families_have_one_slot_whatever_the_server_is_told(family: str, slots: int) -> None:
    server = make(slots=4)
    ask(server, 0.0, replace(A, family=family))
    run_dry(server, 5.0)
    assert [runner.slots for runner in server.runners.values()] == [slots]


def test_embeddings_have_one_slot() -> None:
    server = make(slots=4)
    ask(server, 0.0, model_file("nomic-embed-text", GB))
    run_dry(server, 5.0)
    assert [runner.slots for runner in server.runners.values()] == [1]


# ---- those beside us, and those that hurt


def test_a_foreign_client_keeps_its_slots_busy_from_one_time_to_another() -> None:
    server = make(slots=2, tokens_per_second=50.0)
    work = work_for(A, server.profile, Ask("somebody else's", {"num_predict": 50}))
    client = ForeignClient(server, work, streams=2, since=10.0, until=30.0)
    run_dry(server, 9.0)
    assert (client.asked, server.loads_begun) == (0, 0)
    run_dry(server, 20.0)
    own = ask(server, 20.0)
    assert own.stage is Stage.QUEUED
    run_dry(server, 100.0)
    assert 30 <= client.asked <= 40
    assert ask(server, 100.0).stage is Stage.PREFILL


def test_a_foreign_client_comes_again_after_a_crash() -> None:
    server = make()
    work = work_for(A, server.profile, Ask("somebody else's", {"num_predict": 500}))
    client = ForeignClient(server, work, streams=1, since=0.0)
    run_dry(server, 5.0)
    server.crash(next(iter(server.runners.values())), 5.0)
    run_dry(server, 10.0)
    assert client.asked == 2


def test_a_poisonous_prompt_takes_everybody_on_its_runner_along_and_the_next_request_works() -> None:
    server = make(slots=2, poison="DIE")
    ask(server, 0.0)
    run_dry(server, 20.0)
    good, bad, elsewhere = ask(server, 30.0), ask(server, 30.0, prompt="please DIE"), ask(server, 30.0, B)
    run_dry(server, 31.0)
    assert (good.failure, bad.failure) == (JobFailure.CRASH, JobFailure.CRASH)
    later = ask(server, 31.0)
    run_dry(server)
    assert [job.stage for job in (later, elsewhere)] == [Stage.DONE, Stage.DONE]


def test_a_restart_fails_everybody_and_may_bring_other_slots() -> None:
    server = make(slots=4, max_loaded=1, cold_load_factor=2.0)
    jobs = [ask(server, 0.0), ask(server, 0.0, B)]
    run_dry(server, 4.0)
    jobs += [ask(server, 4.5, C)]
    server.restart(4.6, replace(server.profile, slots=1))
    assert {job.failure for job in jobs if job.stage is Stage.FAILED} == {JobFailure.RESTART}
    assert not server.runners
    assert server.loading is None
    assert server.pending == 0
    again = ask(server, 5.0)
    assert again.wake_at == pytest.approx(7.0), "the page cache outlives the server"
    run_dry(server)
    assert [runner.slots for runner in server.runners.values()] == [1]
