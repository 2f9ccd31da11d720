"""Whose address counts: the peer's, or the one that trusted proxies tell."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.security.client_address import MOST_ENTRIES, TrustedProxies, network_of, spelled

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "::1", "fd00::/8"])
ADDRESSES = st.ip_addresses().map(str)
TRUSTED = st.sampled_from(["10.0.0.1", "10.255.255.255", "127.0.0.1", "::1", "fd00::7", "::ffff:10.1.2.3"])
OUTSIDE = ADDRESSES.filter(lambda text: not PROXIES._trusts(ip_address(text)) and not text.startswith("::ffff"))
ENTRIES = ADDRESSES.map(str.encode) | TRUSTED.map(str.encode) | st.binary(max_size=30)
FIELDS = st.lists(st.lists(ENTRIES, max_size=5).map(b", ".join), max_size=5)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [b""], "127.0.0.1"),
        ("127.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("203.0.113.1", [b"203.0.113.9"], "203.0.113.1"),
        ("127.0.0.2", [b"203.0.113.9"], "127.0.0.2"),
        # what the client itself wrote stands to the left of what the proxy saw
        ("127.0.0.1", [b"192.0.2.66, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", [b"192.0.2.66, 203.0.113.9,10.0.0.1 ,\t10.9.9.9"], "203.0.113.9"),
        ("127.0.0.1", [b"192.0.2.66", b"203.0.113.9", b"10.0.0.1"], "203.0.113.9"),
        ("127.0.0.1", [b"203.0.113.9", b"192.0.2.66, 10.0.0.1"], "192.0.2.66"),
        # only proxies all the way: the farthest
        ("127.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # rubbish ends the search
        ("127.0.0.1", [b"203.0.113.9, unknown"], "127.0.0.1"),
        ("127.0.0.1", [b"203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("127.0.0.1", [b"203.0.113.9,"], "127.0.0.1"),
        ("127.0.0.1", [b"203.0.113.9", b""], "127.0.0.1"),
        # ports, brackets, and one spelling of each address
        ("127.0.0.1", [b"1.2.3.4:567"], "1.2.3.4"),
        ("127.0.0.1", [b"[2001:DB8::0:1]:80"], "2001:db8::1"),
        ("127.0.0.1", [b"[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", [b"2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", [b"::ffff:1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", [b"1.2.3.4, [::ffff:10.0.0.1]:80"], "1.2.3.4"),
        ("::1", [b"1.2.3.4"], "1.2.3.4"),
        ("::ffff:127.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("fd00::1%eth0", [b"1.2.3.4"], "1.2.3.4"),
        # no peer that could be asked about
        ("", [b"1.2.3.4"], ""),
        ("a socket", [b"1.2.3.4"], "a socket"),
    ],
)
def test_who_the_client_is(peer: str, forwarded: list[bytes], client: str) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


@pytest.mark.parametrize(
    "entry",
    [b"x", b"1.2.3", b"1.2.3.4.5", b"01.2.3.4", b"1.2.3.4:", b"1.2.3.4:x", b"1.2.3.4:123456", b"[1.2.3.4", b"[::1]x",
     b"[]", b":", b"1.2.3.4 5.6.7.8", b"fe80::1%evil\x1b[31m", b'"1.2.3.4"', b"_hidden", b"host.example", b"1.2.3.4\n",
     b"\xb2.2.2.2", "१.2.3.4".encode(), b"0" * 60_000, b"1.2.3.4/8", b"for=1.2.3.4"],
)  # fmt: skip
def test_what_is_no_address_is_not_believed(entry: bytes) -> None:
    assert PROXIES.client_of("127.0.0.1", [b"203.0.113.9, " + entry]) == "127.0.0.1"


@given(OUTSIDE, FIELDS)
def test_nobody_but_a_trusted_proxy_is_believed(peer: str, forwarded: list[bytes]) -> None:
    assert PROXIES.client_of(peer, forwarded) == peer


@given(OUTSIDE, TRUSTED, FIELDS)
def test_a_client_behind_a_proxy_cannot_forge_its_address(client: str, proxy: str, forged: list[bytes]) -> None:
    appended = [*forged[:-1], b", ".join([*forged[-1:], client.encode()])]
    for forwarded in (appended, [*forged, client.encode()], [*forged, client.encode(), b"10.0.0.2"]):
        assert PROXIES.client_of(proxy, forwarded) == client


@given(ADDRESSES | st.text(max_size=20), FIELDS | st.lists(st.binary(max_size=200)))
def test_whatever_comes_the_outcome_is_the_peer_or_an_address(peer: str, forwarded: list[bytes]) -> None:
    found = PROXIES.client_of(peer, forwarded)
    assert found == peer or str(ip_address(found)) == found


@given(TRUSTED, FIELDS)
def test_several_fields_are_one_list(proxy: str, forwarded: list[bytes]) -> None:
    whole = [b",".join(forwarded)] if forwarded else []
    assert PROXIES.client_of(proxy, forwarded) == PROXIES.client_of(proxy, whole)


@given(ADDRESSES | st.text(max_size=20), FIELDS)
def test_without_trusted_proxies_the_peer_comes_back_untouched(peer: str, forwarded: list[bytes]) -> None:
    assert TrustedProxies(()).client_of(peer, forwarded) is peer


def test_a_whole_head_is_searched_for_all_fields_in_any_case() -> None:
    head = [(b"X-Forwarded-For", b"192.0.2.66"), (b"host", b"x"), (b"x-forwarded-for", b"203.0.113.9, 10.0.0.1")]
    assert PROXIES.client_in("127.0.0.1", head) == "203.0.113.9"
    assert PROXIES.client_in("203.0.113.1", head) == "203.0.113.1"
    assert PROXIES.client_in("127.0.0.1", head[1:2]) == "127.0.0.1"
    assert TrustedProxies(()).client_in("127.0.0.1", head) == "127.0.0.1"


@pytest.mark.parametrize("separate", [True, False])
def test_only_so_many_entries_are_looked_at(separate: bool) -> None:
    def client(count: int) -> str:
        chain = [b"1.2.3.4", *[b"10.0.0.9"] * count]
        return PROXIES.client_of("127.0.0.1", chain if separate else [b",".join(chain)])

    assert client(MOST_ENTRIES - 1) == "1.2.3.4"
    assert client(MOST_ENTRIES) == "10.0.0.9"
    assert client(20_000) == "10.0.0.9"


def test_everybody_may_be_trusted_on_purpose() -> None:
    everybody = TrustedProxies(["0.0.0.0/0", "::/0"])
    assert everybody.client_of("203.0.113.1", [b"1.2.3.4, 2001:db8::1"]) == "1.2.3.4"


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.7/32", "10.0.0.7"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("FD00:0::/8", "fd00::/8"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::1/128", "::1"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_have_one_spelling(text: str, spelling: str) -> None:
    assert spelled(network_of(text)) == spelling
    assert network_of(spelling) == network_of(text)


@pytest.mark.parametrize(
    "text",
    ["", "*", "localhost", "proxy.example", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "[::1]",
     "10.0.0.1:80", "fe80::1%eth0", "10.0.0.1 ", "10.0.0.0/8/8", "http://10.0.0.1", "::/129", "16777216"],
)  # fmt: skip
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        network_of(text)


@pytest.mark.parametrize("text", ["10.0.0.7/8", "fd00::1/8", "::ffff:0:0/95"])
def test_a_network_that_may_be_meant_as_one_address_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="beyond its prefix"):
        network_of(text)


@given(ADDRESSES, st.integers(0, 128))
def test_any_network_keeps_its_meaning(text: str, prefix: int) -> None:
    try:
        network = network_of(f"{text}/{prefix}")
    except ValueError:
        return
    again = network_of(spelled(network))
    assert (again, spelled(again)) == (network, spelled(network))
