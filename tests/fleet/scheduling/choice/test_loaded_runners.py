"""What is loaded on a server, with which options, and whom it serves."""

from __future__ import annotations

import pytest

from fleet.common.model_names import canonical
from fleet.scheduling.choice.homes import Homes
from fleet.scheduling.choice.loaded_runners import NO_WISH, Claim, LoadedRunners, Wish, wish_of
from fleet.scheduling.estimates.evictions import Evictions, Resident
from tests.fleet.builders import make_server

M, N = canonical("m"), canonical("n")
GPU = Wish(None, (("num_gpu", 0),))


def runners(**contexts: int) -> LoadedRunners:
    """A server on which a probe has shown these models with these contexts."""
    view = LoadedRunners(make_server("a", "m", "n"), Evictions(), Homes())
    show(view, 0.0, **contexts)
    return view


def show(view: LoadedRunners, now: float, **contexts: int) -> None:
    view.now = now
    view.state.resident = {canonical(model): {"context_length": context} for model, context in contexts.items()}
    view.evictions.seen(view.id, [Resident(model, 5e9, now + 300.0) for model in view.state.resident], now)
    view.shown()


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (None, NO_WISH),
        ({"shift": True}, NO_WISH),
        ({"num_ctx": 8192}, Wish(8192)),
        ({"num_gpu": 0, "num_ctx": 8192, "num_batch": 64}, Wish(8192, (("num_batch", 64), ("num_gpu", 0)))),
        ({"shift": False}, Wish(None, (("shift", False),))),
    ],
)
def test_a_wish_is_what_makes_a_runner_load_anew(options: dict[str, object] | None, wish: Wish) -> None:
    assert wish_of(options) == wish


@pytest.mark.parametrize(
    ("loaded", "shown", "wish", "fits"),
    [
        # what it was loaded with (None: others did that), the context shown, what is asked for
        (None, 4096, NO_WISH, True),
        (None, 4096, Wish(4096), True),
        (None, 4096, Wish(8192), False),
        (None, 4096, GPU, False),
        (NO_WISH, 4096, NO_WISH, True),
        (NO_WISH, 4096, Wish(4096), True),  # Ollama compares the numbers
        (NO_WISH, 4096, Wish(8192), False),
        (Wish(8192), 8192, Wish(8192), True),
        (Wish(8192), 8192, NO_WISH, False),
        (Wish(8192), 8192, Wish(4096), False),
        (Wish(8192), 2048, Wish(4096), True),  # both are cut to what the model was trained for
        (GPU, 4096, GPU, True),
        (GPU, 4096, NO_WISH, False),
    ],
)
def test_a_runner_serves_who_asks_for_what_it_was_loaded_with(
    loaded: Wish | None, shown: int, wish: Wish, fits: bool
) -> None:
    view = runners()
    if loaded is not None:
        view.runs(M, loaded, 1.0)
    show(view, 2.0, m=shown)
    assert view.serves(M, wish) is fits


def test_once_the_servers_own_context_is_known_another_ones_does_not_serve_who_names_none() -> None:
    view = runners(m=8192)
    assert view.serves(M, NO_WISH), "who knows"
    view.runs(M, NO_WISH, 1.0)
    show(view, 2.0, m=4096)
    show(view, 3.0)
    show(view, 4.0, m=8192)  # a foreign client's
    assert not view.serves(M, NO_WISH)
    assert view.serves(M, Wish(8192))


def test_a_context_that_changes_without_us_is_somebody_elses() -> None:
    view = runners()
    view.runs(M, GPU, 1.0)
    show(view, 2.0, m=4096)
    show(view, 3.0, m=16384)
    assert not view.serves(M, GPU)
    assert view.serves(M, Wish(16384))


def test_what_has_answered_is_loaded_for_a_while_though_no_probe_has_shown_it() -> None:
    view = runners()
    view.runs(M, NO_WISH, 1.0)
    view.now = 20.0
    assert view.serves(M, NO_WISH)
    view.now = 40.0
    assert not view.serves(M, NO_WISH)


def test_a_load_under_way_is_joined_only_by_who_asks_for_the_same() -> None:
    view = runners(m=4096)
    view.loads(M, Wish(8192), [N])
    assert not view.serves(M, NO_WISH)
    assert not view.serves(N, NO_WISH)
    assert view.joins(M, Wish(8192))
    assert not view.joins(M, NO_WISH)
    assert list(view.leaving(M, NO_WISH)) == [M], "who asks for less has to wait until those are idle"
    assert list(view.leaving(M, Wish(8192))) == []
    view.runs(M, Wish(8192), 5.0)
    assert view.serves(M, Wish(8192))


def test_a_runner_with_other_options_leaves_for_its_own_model() -> None:
    view = runners(m=4096)
    assert list(view.leaving(M, Wish(8192))) == [M]
    assert list(view.leaving(N, NO_WISH)) == [], "there is room, as far as anybody knows"


def test_a_runner_that_died_is_gone_and_holds_nobody_up() -> None:
    view = runners(m=4096)
    view.loads(M, Wish(8192), [])
    view.unloaded(M)
    assert not view.serves(M, Wish(8192))
    assert list(view.leaving(M, NO_WISH)) == []


def test_a_claim_keeps_what_has_to_leave_from_everybody_else_until_it_is_void() -> None:
    view = runners(m=4096, n=4096)
    view.claim = Claim(M, Wish(8192), frozenset({M}), 5.0, until=10.0)
    assert not view.serves(M, NO_WISH)
    assert view.serves(N, NO_WISH), "it may stay"
    assert view.may_go(M, Wish(8192))
    assert not view.may_go(M, NO_WISH)
    view.now = 10.0
    assert view.serves(M, NO_WISH)
    view.claim = Claim(M, Wish(8192), frozenset({M}), 5.0, until=30.0)
    view.loads(M, Wish(8192), [])
    assert view.claim is None, "that is what it was for"


def test_homes_follow_what_is_loaded() -> None:
    view = runners(m=4096)
    homes = view.homes
    assert homes.others(make_server("b").id, M) == 1
    view.loads(N, NO_WISH, [M])
    assert (homes.others(make_server("b").id, M), homes.others(make_server("b").id, N)) == (0, 1)
    show(view, 5.0)
    assert homes.others(make_server("b").id, N) == 0
