"""Servers as people write them who know OLLAMA_HOST: what each comes to, and what it is called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config import ConfigError, Loaded, amend, load
from fleet.config.loading.server_shorthand import url_of
from fleet.config.schema.servers import RESERVED_IDS
from tests.fleet.config.config_kit import config, messages


@pytest.mark.parametrize(
    ("text", "url"),
    [
        # as Ollama's own table of tests has them, where one can connect there
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("example.com:1234/", "http://example.com:1234/"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        (" 1.2.3.4 ", "http://1.2.3.4:11434"),
        ('"1.2.3.4"', "http://1.2.3.4:11434"),
        ("'http://1.2.3.4'", "http://1.2.3.4"),
        ("http://1.2.3.4", "http://1.2.3.4"),
        ("https://1.2.3.4", "https://1.2.3.4"),
        ("https://1.2.3.4:4321/base", "https://1.2.3.4:4321/base"),
        ("ollama", "http://ollama:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("[::]:5", "http://[::1]:5"),
        ("example.com:", "http://example.com:11434"),
    ],
)
def test_an_entry_is_read_as_ollama_s_clients_read_their_host(text: str, url: str) -> None:
    assert url_of(text) == url


@pytest.mark.parametrize("text", ["http:/a", "http:a", "https", "ftp://a", "[::1", "a:b", "10.0.0.256:1", "a b", "u@a"])
def test_what_is_no_host_is_complained_about_as_a_url(text: str) -> None:
    found = messages(json.dumps({"servers": [text]}))
    assert set(found) == {"servers.0.url"}


SERVERS = {
    "10.0.0.11-11434": "http://10.0.0.11:11434",
    "10.0.0.12-11434": "http://10.0.0.12:11434",
    "gpu": "http://g:1",
}


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.11:11434,10.0.0.12,gpu=http://g:1",
        "10.0.0.11:11434;10.0.0.12:11434;gpu=g:1",
        " 10.0.0.11   http://10.0.0.12:11434/\n gpu=g:1 ; ",
        "10.0.0.11, 10.0.0.12 ;, 'gpu=g:1'",
        '["10.0.0.11:11434", "10.0.0.12", {"id": "gpu", "url": "g:1"}]',
    ],
)
def test_the_environment_takes_commas_semicolons_spaces_and_lists(text: str) -> None:
    assert {spec.id: spec.url for spec in config(None, {"FLEET_SERVERS": text}).servers} == SERVERS


@pytest.mark.parametrize(
    "text",
    [
        "servers: [10.0.0.11, '10.0.0.12:11434', {id: gpu, url: 'g:1'}]",
        "servers:\n- 10.0.0.11:11434\n- http://10.0.0.12:11434/\n- gpu=http://g:1\n",
        "servers: [{url: 'http://10.0.0.11:11434'}, {url: 10.0.0.12}, {url: 'g:1', id: gpu}]",
    ],
)
def test_the_file_takes_plain_urls_and_entries_without_an_id(text: str) -> None:
    assert {spec.id: spec.url for spec in config(text).servers} == SERVERS


def test_an_address_in_brackets_alone_is_no_list() -> None:
    found = config(None, {"FLEET_SERVERS": "[::1]:5 [fe80::1%eth0]", "FLEET_SECURITY__BACKENDS__ALLOW_LINK_LOCAL": "1"})
    assert [spec.url for spec in found.servers] == ["http://[::1]:5", "http://[fe80::1%eth0]:11434"]


def test_names_that_were_not_given_are_unique_and_always_the_same() -> None:
    text = "servers: ['http://a:1', 'https://a:1', 'http://a:1/-', {id: b-1, url: 'http://x'}, 'http://b:1', 'b:2']"
    first = [spec.id for spec in config(text).servers]
    assert len(set(first)) == 6
    assert (first[0], first[3], first[5]) == ("a-1", "b-1", "b-2")
    assert first[1].startswith("a-1-")
    assert first[4].startswith("b-1-")
    assert first == [spec.id for spec in config(text).servers]
    alone = config("servers: [{id: b-1, url: 'http://x'}, 'http://b:1']").servers
    assert alone[1].id == first[4]


def test_the_same_machine_twice_is_still_told() -> None:
    assert "means the same as servers.0.url" in messages("servers: ['a:11434', 'http://a:11434/']")["servers.1.url"]


def test_a_request_takes_plain_urls_too_but_says_urls_in_full() -> None:
    base: Loaded = load(None, {}, {}, source="f.yml")
    found = amend(base, {"servers": ["http://a", "b:5", {"url": "http://c:1"}]}, source="PATCH").config
    assert [spec.id for spec in found.servers] == ["a-80", "b-5", "c-1"]
    with pytest.raises(ConfigError, match=r"servers\.0\.url: must start"):
        amend(base, {"servers": [{"id": "x", "url": "nonsense"}]}, source="PATCH")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=4))
def test_whatever_is_listed_gets_a_valid_name_or_a_complaint(entries: list[str]) -> None:
    try:
        found = amend(load(None, {}, {}, source="f.yml"), {"servers": entries}, source="test").config
    except ConfigError:
        return
    names = [spec.id for spec in found.servers]
    assert len(set(names)) == len(names) == len(entries)
    assert not RESERVED_IDS & set(names)
