"""Who follows the configuration, and for how long."""

from __future__ import annotations

from actors.state.config_ref import ConfigRef
from fleet.config import Config


def test_who_has_left_is_told_no_more_and_costs_the_others_nothing() -> None:
    ref, told = ConfigRef(Config()), list[str]()
    leave = ref.follow(lambda *_: told.append("first"))
    ref.follow(lambda *_: told.append("second"))
    ref.tell(ref.current)
    leave()
    ref.tell(ref.current)
    assert told == ["first", "second", "second"]


def test_who_leaves_while_all_are_told_makes_nobody_miss_it() -> None:
    ref, told = ConfigRef(Config()), list[str]()
    leave = ref.follow(lambda *_: leave())
    ref.follow(lambda *_: told.append("second"))
    ref.tell(ref.current)
    assert told == ["second"]
