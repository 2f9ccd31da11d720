"""Words of routes are no ids of servers: the route with the word would answer for the server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fleet.config import ConfigError, load, parse_server
from fleet.config.schema.servers import RESERVED_IDS
from fleet.scheduling.server_overrides import sorted_out
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import served
from tests.web.admin.contract.here import SEED
from web.admin.route_table import entries_of
from web.http.ports import Face

SERVER = re.compile(r"<(?:path:)?(?:server|server_?id)>")


def rules() -> set[tuple[str, ...]]:
    """Every route of every port, taken apart; and those of the reference, whose clients ask for them."""
    reference = SEED.read_text().splitlines()
    named = [re.sub(r":(\w+)", r"<\1>", line.split()[1]) for line in reference if line[:1].isupper()]
    seed = [path.replace("/servers/<id>", "/servers/<server>").replace("<serverId>", "<server>") for path in named]
    ours = [entry.path for face in Face for entry in entries_of(face)]
    return {tuple(path.split("/")) for path in (*ours, *seed)}


def shadowing() -> Iterator[str]:
    """Static words at a place where another route, equal up to there, has a server's id."""
    for rule in rules():
        for at, part in enumerate(rule):
            if not SERVER.fullmatch(part):
                continue
            for other in rules():
                same = all(one == two or "<" in one or "<" in two for one, two in zip(rule[:at], other, strict=False))
                if len(other) > at and same and "<" not in other[at]:
                    yield other[at]


def test_every_word_of_a_route_that_could_be_taken_for_a_server_is_reserved() -> None:
    found = set(shadowing())
    assert {"add", "model", "recent", "recovery-tests", "server", "stats"} <= found
    assert found <= RESERVED_IDS, "a new route: add its word"


@pytest.mark.parametrize("word", sorted(RESERVED_IDS))
def test_no_layer_takes_one(word: str) -> None:
    for text, env in (
        (f"servers: [{{id: {word}, url: 'http://a'}}]", {}),
        (None, {"FLEET_SERVERS": f"{word}=http://a"}),
    ):
        with pytest.raises(ConfigError) as caught:
            load(text, env, {}, source="f.yml")
        [problem] = caught.value.problems
        assert problem.path == "servers.0.id"
        assert ", ".join(sorted(RESERVED_IDS)) in problem.message
    with pytest.raises(ConfigError, match="id"):
        parse_server({"id": word, "url": "http://a"})


async def test_the_api_refuses_it_and_names_the_words() -> None:
    async with served("a") as here:
        for word in ("server", "model", "recent"):
            found = await ask(here, "POST", "/servers/add", {"id": word, "url": "http://x"}, status=400)
            assert "id: is a word" in found["error"]
            servers = [{"id": word, "url": "http://x"}]
            found = await ask(here, "POST", "/config", {"servers": servers}, status=400)
            assert found["problems"][0]["path"] == "servers.0.id"
        assert len(here.system.servers) == 1


def test_one_that_was_kept_before_is_set_aside() -> None:
    document = {"spec": {"id": "recent", "url": "http://a"}, "base": None}
    specs, aside = sorted_out([], {"recent": document})
    assert specs == ()
    assert aside["recent"].why.startswith("id: is a word")


@pytest.mark.parametrize("name", ["Server", "server-1", "models", "recent.1", "statsy"])
def test_words_that_only_look_like_them_are_fine(name: str) -> None:
    assert parse_server({"id": name, "url": "http://a"}).id == name
