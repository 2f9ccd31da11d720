from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.hosts import is_local


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:11435",
        "localhost.",
        "app.localhost",
        "127.0.0.1:11435",
        "127.9.9.9",
        "10.0.0.5:1",
        "192.168.1.2",
        "0.0.0.0",
        "[::1]:11435",
        "[::1]",
        "::1",
        "nas.local:80",
        "host.docker.internal",
        "nas:11435",
        "mine",
        "MINE:1",
    ],
)
def test_local_names_and_addresses(host: str) -> None:
    assert is_local(host, ("mine",))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.local.example",
        "8.8.8.8:80",
        "[2001:4860:4860::8888]",
        ".",
        "..a",
        "a b",
    ],
)
def test_other_names_and_addresses(host: str) -> None:
    assert not is_local(host, ("mine",))


@given(st.text())
def test_no_host_makes_it_raise(host: str) -> None:
    is_local(host)
