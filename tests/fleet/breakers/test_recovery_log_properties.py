"""Whatever happens to servers, the numbers of the recovery log are what happened."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fleet.breakers.recovery_log import Failure, RecoveryLog
from fleet.breakers.recovery_reports import HOUR, analyse, latest, summarise
from fleet.common.ids import Pair, ServerId
from tests.fleet.breakers.recoveries import CLOSED, OPEN, PROBE, S1, S2, TRIAL, TYPES, A

# ---- any story

Event = tuple[str, str, float, str]
KINDS = [kind for kind, _ in TYPES]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["probe", "trial", "test", "cancel", "move", "forget"]),
        st.sampled_from([S1, S2]),
        st.floats(0, 1000),
        st.sampled_from(["ok", *KINDS]),
    ),
    max_size=60,
)


def write(book: RecoveryLog, events: Iterable[Event]) -> list[tuple[Event, float]]:
    """Tell the book a story; returns it with its moments."""
    now, told = 0.0, []
    for event in events:
        what, server, pause, kind = event
        now += pause
        pair, failure = Pair(ServerId(server), A.model), None if kind == "ok" else Failure(kind, "text")
        match what:
            case "probe" | "trial":
                book.attempt(pair, PROBE if what == "probe" else TRIAL, now, failure=failure)
            case "test":
                book.tested(pair, now, 0.5, failure=failure)
            case "cancel":
                book.cancelled(pair.server)
            case "move":
                book.moved(pair, CLOSED, OPEN, "story", now, pause)
            case "forget":
                book.forget(pair.server)
        told.append((event, now))
    return told


@given(EVENTS)
def test_whatever_happens_the_numbers_are_what_happened(events: list[Event]) -> None:
    book = RecoveryLog()
    story = write(book, events)
    now = story[-1][1] if story else 0.0
    for server in (S1, S2):
        mine = [(event, at) for event, at in story if event[1] == server]
        cut = max((n for n, (event, _) in enumerate(mine) if event[0] == "forget"), default=-1)
        mine = mine[cut + 1 :]
        tried = [(event[3] == "ok", at) for event, at in mine if event[0] in ("probe", "trial", "test")]
        failed = [at for ok, at in tried if not ok]
        page = book.page(server)
        assert (page.tried, page.failed, page.succeeded) == (len(tried), len(failed), len(tried) - len(failed))
        assert [(attempt.ok, attempt.at) for attempt in page.attempts] == tried
        assert page.in_a_row == next((n for n, (ok, _) in enumerate(reversed(tried)) if ok), len(tried))
        assert page.first_failure == (failed[0] if failed else None)
        assert page.mean_gap >= 0.0
        assert page.moved == sum(event[0] == "move" for event, _ in mine)
        assert page.tests.ended == sum(event[0] == "test" for event, _ in mine)
        assert page.tests.cancelled == sum(event[0] == "cancel" for event, _ in mine)
        seen = analyse(page, now, HOUR)
        assert 0.0 <= seen.confidence < 1.0
        assert seen.failures == sum(seen.types.values()) == sum(at > now - HOUR for at in failed)
        assert seen.advice


@given(EVENTS, st.floats(1, 10_000))
def test_the_summary_is_the_sum_of_its_servers(events: list[Event], window: float) -> None:
    book = RecoveryLog()
    story = write(book, events)
    now = story[-1][1] if story else 0.0
    pages = {server: book.page(server) for server in (S1, S2)}
    whole, parts = summarise(pages, now, window), [summarise({s: p}, now, window) for s, p in pages.items()]
    for name in ("servers", "failing", "persistent", "attempts", "failures"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert whole.failures == sum(whole.types.values()) == sum(count for _, count in whole.top)
    assert len(latest(pages.values(), 10_000)) == sum(page.failed for page in pages.values())
