"""Who was there when runners died: suspected, convicted, cleared, forgotten."""

from __future__ import annotations

import pytest

from fleet.breakers.outcomes import End, Refused, StreamError, is_death
from fleet.breakers.poison import REMEMBERED, PoisonTable, Standing
from fleet.common.ids import ModelName, ServerId

A, B, M = ServerId("a"), ServerId("b"), ModelName("m:latest")
BODY = b'{"prompt": "kill"}'


def make() -> PoisonTable:
    return PoisonTable(b"k" * 32)


def test_one_death_makes_a_suspect_and_a_second_one_elsewhere_and_alone_convicts() -> None:
    table = make()
    assert table.standing(M, BODY, 0.0) is Standing.CLEAR
    assert not table.died(M, BODY, A, 0.0, alone=False)
    assert table.standing(M, BODY, 1.0) is Standing.SUSPECT
    assert table.died(M, BODY, B, 2.0, alone=True)
    assert table.standing(M, BODY, 3.0) is Standing.CONVICTED


def test_whoever_has_company_when_runners_die_is_not_convicted() -> None:
    table = make()
    for server in (A, B, A):
        table.died(M, BODY, server, 0.0, alone=False)
    assert table.standing(M, BODY, 1.0) is Standing.SUSPECT


def test_a_server_where_runners_die_again_and_again_convicts_nobody() -> None:
    table = make()
    assert [table.died(M, BODY, A, float(at), alone=True) for at in range(5)] == [False] * 5
    assert table.standing(M, BODY, 5.0) is Standing.SUSPECT


def test_an_answer_clears_and_time_forgets() -> None:
    table = make()
    table.died(M, BODY, A, 0.0, alone=False)
    table.answered(M, BODY)
    assert table.standing(M, BODY, 0.0) is Standing.CLEAR
    table.died(M, BODY, A, 0.0, alone=False)
    table.died(M, BODY, B, 0.0, alone=True)
    assert table.standing(M, BODY, REMEMBERED) is Standing.CLEAR
    assert not table.died(M, BODY, B, REMEMBERED, alone=True), "what is forgotten convicts nobody"


def test_another_body_or_another_model_is_another_request() -> None:
    table = make()
    table.died(M, BODY, A, 0.0, alone=False)
    assert table.standing(M, BODY[::-1], 0.0) is Standing.CLEAR
    assert table.standing(ModelName("n:latest"), BODY, 0.0) is Standing.CLEAR


def test_it_stays_small_and_keeps_no_prompt() -> None:
    table = make()
    for number in range(3000):
        table.died(M, b"secret %d" % number, A, 0.0, alone=False)
    assert table.standing(M, b"secret 0", 0.0) is Standing.CLEAR
    assert table.standing(M, b"secret 2999", 0.0) is Standing.SUSPECT
    assert len(table._deaths) <= 1024
    assert b"secret" not in repr(table._deaths).encode()


@pytest.mark.parametrize(
    ("end", "death"),
    [
        (Refused(500, "model runner has unexpectedly stopped, this may be due to resource limitations"), True),
        (Refused(500, "llama runner process has terminated: signal: killed"), True),
        (StreamError("model runner has unexpectedly stopped"), True),
        (Refused(500, "unable to load model: /blobs/x"), False),
        (Refused(500, "timed out waiting for llama-server to start"), False),
        (StreamError("an error"), False),
        (Refused(503, "model runner has unexpectedly stopped"), False),
    ],
)
def test_a_runner_that_died_at_work_is_told_from_a_model_that_does_not_load(end: End, death: bool) -> None:
    assert is_death(end) is death


def test_two_servers_mourn_their_runners_in_different_words_and_agree() -> None:
    first = Refused(500, "model runner has unexpectedly stopped")
    assert first.agrees(Refused(500, "llama runner process has terminated: exit status 2"))
    assert not first.agrees(Refused(500, "unable to load model"))
