"""Which server may have the beginning of a prompt in its cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import Pair, ServerId
from fleet.scheduling.estimates.affinity.affinity_table import AffinityTable, PrefixHit
from fleet.scheduling.estimates.affinity.prompt_links import PromptLink
from tests.fleet.scheduling.estimates.pairs import AM, AN, BM, A, B, M, N

SYSTEM, TURN, NEXT = PromptLink(1, 100), PromptLink(2, 200), PromptLink(3, 300)
SESSION = 99


def test_the_longest_known_beginning_counts_for_each_server() -> None:
    table = AffinityTable()
    table.note(AM, [SYSTEM, TURN], None, 0.0)
    table.note(BM, [SYSTEM], None, 5.0)
    assert table.find(M, [SYSTEM, TURN, NEXT], None, 10.0) == {A: PrefixHit(200, 10.0), B: PrefixHit(100, 5.0)}
    assert table.find(M, [PromptLink(7, 50)], None, 10.0) == {}


def test_a_runner_that_was_loaded_anew_has_an_empty_cache() -> None:
    table = AffinityTable()
    table.note(AM, [SYSTEM], None, 0.0)
    table.note(BM, [SYSTEM], None, 0.0)
    table.renew(AM)
    assert list(table.find(M, [SYSTEM], None, 1.0)) == [B]
    table.note(AM, [SYSTEM], None, 2.0)
    assert list(table.find(M, [SYSTEM], None, 3.0)) == [A, B]


def test_a_load_of_another_model_there_changes_nothing() -> None:
    table = AffinityTable()
    table.note(AM, [SYSTEM], None, 0.0)
    table.renew(AN)
    assert list(table.find(M, [SYSTEM], None, 1.0)) == [A]
    assert table.find(N, [SYSTEM], None, 1.0) == {}


def test_a_session_counts_where_the_prompt_itself_is_unknown() -> None:
    table = AffinityTable()
    table.note(AM, [SYSTEM, TURN], SESSION, 0.0)
    table.note(BM, [SYSTEM], None, 0.0)
    found = table.find(M, [PromptLink(8, 1000)], SESSION, 4.0)
    assert found == {A: PrefixHit(200, 4.0)}  # no more than it had
    assert table.find(M, [SYSTEM, NEXT], SESSION, 4.0) == {A: PrefixHit(100, 4.0), B: PrefixHit(100, 4.0)}


def test_four_servers_are_remembered_for_a_beginning_the_latest() -> None:
    table = AffinityTable()
    for at in range(6):
        table.note(Pair(ServerId(f"s{at}"), M), [SYSTEM], None, at * 1.0)
    assert list(table.find(M, [SYSTEM], None, 6.0)) == ["s5", "s4", "s3", "s2"]


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 40), max_size=5)), max_size=60))
def test_it_stays_within_its_bounds_and_keeps_what_was_used_last(notes: list[tuple[int, list[int]]]) -> None:
    table = AffinityTable(most=10)
    for at, (server, digests) in enumerate(notes):
        table.note(Pair(ServerId(str(server)), M), [PromptLink(digest, 50) for digest in digests], None, at * 1.0)
        assert len(table) <= 10
        for digest in digests:
            assert str(server) in table.find(M, [PromptLink(digest, 50)], None, at * 1.0)


def test_a_pair_that_was_forgotten_does_not_come_back_with_an_old_epoch() -> None:
    table = AffinityTable()
    table.note(AM, [SYSTEM], None, 0.0)
    for at in range(16_384):
        table.renew(Pair(ServerId(f"x{at}"), M))
    table.note(AM, [TURN], None, 1.0)
    assert table.find(M, [SYSTEM], None, 2.0) == {}
    assert list(table.find(M, [TURN], None, 2.0)) == [A]
