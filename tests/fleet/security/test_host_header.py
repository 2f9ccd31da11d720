from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.security.host_header import is_local, is_loopback


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


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "LOCALHOST:11435", "localhost.", "localhost.:80", "app.localhost", "127.0.0.1:1", "127.9.9.9",
     "[::1]:1", "[::1]", "::1", "mine:1"],
)  # fmt: skip
def test_names_that_mean_this_machine_alone(host: str) -> None:
    assert is_loopback(host, ("mine",))


@pytest.mark.parametrize(
    "host",
    ["evil.local", "evil.internal", "nas", "192.168.0.3", "10.0.0.1:80", "172.16.0.1", "169.254.169.254", "0.0.0.0",
     "[fe80::1]", "[fd00::1]", "[::]", "localhost..", "localhost.local", "xlocalhost", "127.0.0.1.nip.io", "127.1",
     "2130706433", "0x7f.0.0.1", "0177.0.0.1", "localhost@evil", "[::ffff:10.0.0.1]", ".", "[::1", "localhost,evil",
     "evil localhost", "%6cocalhost"],
)  # fmt: skip
def test_names_that_may_be_somebody_elses(host: str) -> None:
    assert not is_loopback(host, ("mine",))


@given(st.text())
def test_no_host_makes_the_stricter_one_raise(host: str) -> None:
    is_loopback(host)
