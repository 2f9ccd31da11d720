"""Where a server's URL must not point, in every disguise; and what operators may allow or forbid besides."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import BackendsSection, Config, ConfigError, load, normalise_url
from fleet.security.backend_addresses import address_of, refusal, refused_addresses

DEFAULT = BackendsSection()


def judge(host: str, section: BackendsSection = DEFAULT) -> str | None:
    return refusal(f"http://{host}:11434", section)


METADATA = [
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xA9FEA9FE",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "0251.254.43518",
    "169.16689662",
    "025177524776",
    "0000000000000000251.0376.0251.0376",  # a resolver takes any number of zeros
    "0x00000000a9fea9fe",
    "00000000000025177524776",
    "[::ffff:0:a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fd00:0ec2:0:0:0:0:0:0254]",
    "[fd00:ec2::254%25eth0]",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "metadata.google.internal",
    "METADATA.google.Internal.",
    "metadata",
    "instance-data",
]


@pytest.mark.parametrize("host", METADATA)
def test_cloud_metadata_is_never_a_server_whatever_is_allowed(host: str) -> None:
    for section in (DEFAULT, BackendsSection(allow_link_local=True), BackendsSection(allowed=("0.0.0.0/0", "::/0"))):
        assert "credentials" in (judge(host, section) or "")


@pytest.mark.parametrize(
    "host",
    ["169.254.0.1", "169.254.7", "0xa9fe0001", "[fe80::1]", "[fe80::1%25eth0]", "[febf::1]", "[::ffff:169.254.3.4]"],
)
def test_link_local_needs_a_permission(host: str) -> None:
    assert "link-local" in (judge(host) or "")
    assert judge(host, BackendsSection(allow_link_local=True)) is None
    assert judge(host, BackendsSection(allow_link_local=True, allow_private=False)) is None


PRIVATE = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST.",
    "127.1",
    "2130706433",
    "10.0.0.7",
    "192.168.1.2",
    "172.16.0.1",
    "0.0.0.0",
    "100.64.0.1",
    "[::1]",
    "[::]",
    "[fd00::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::10.0.0.1]",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_fine_unless_the_operator_says_no(host: str) -> None:
    assert judge(host) is None
    assert "private" in (judge(host, BackendsSection(allow_private=False)) or "")


@pytest.mark.parametrize("host", ["93.184.215.14", "[2606:4700::1111]", "gpu1.example", "gpu1", "8.8.8.8"])
def test_everything_else_is_fine(host: str) -> None:
    assert judge(host) is None
    assert judge(host, BackendsSection(allow_private=False)) is None


@pytest.mark.parametrize("host", ["224.0.0.1", "255.255.255.255", "[ff02::1]"])
def test_an_address_of_many_machines_is_no_server(host: str) -> None:
    assert "many machines" in (judge(host, BackendsSection(allow_link_local=True)) or "")


LISTED = BackendsSection(allowed=("10.0.0.0/8", "GPU1.example.", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("10.1.2.3", True),
        ("0x0a010203", True),
        ("[::ffff:10.1.2.3]", True),
        ("[2001:db8::1]", True),
        ("gpu1.example", True),
        ("GPU1.EXAMPLE.", True),
        ("11.0.0.1", False),
        ("127.0.0.1", False),
        ("[2001:db9::1]", False),
        ("gpu2.example", True),  # only its addresses can tell
    ],
)
def test_a_list_of_places_leaves_out_all_others(host: str, fine: bool) -> None:
    assert (judge(host, LISTED) is None) is fine


def test_a_list_of_names_alone_leaves_out_all_other_names_and_addresses() -> None:
    names = BackendsSection(allowed=("gpu1.example",))
    assert judge("gpu1.example", names) is None
    for host in ("gpu2.example", "gpu1.example.evil.example", "10.0.0.1"):
        assert "allowed" in (judge(host, names) or "")


RESOLVED = [
    (["10.0.0.1"], DEFAULT, ""),
    (["10.0.0.1", "169.254.169.254"], DEFAULT, "credentials"),
    (["::ffff:a9fe:a9fe"], DEFAULT, "credentials"),
    (["fe80::1%eth0"], DEFAULT, "link-local"),
    (["127.0.0.1"], BackendsSection(allow_private=False), "private"),
    (["10.9.9.9"], LISTED, ""),
    (["10.9.9.9", "11.0.0.1"], LISTED, "allowed"),
    ([], DEFAULT, ""),
    (["no address"], DEFAULT, ""),
]


@pytest.mark.parametrize(("addresses", "section", "words"), RESOLVED)
def test_a_name_is_judged_by_all_its_addresses(addresses: list[str], section: BackendsSection, words: str) -> None:
    why = refused_addresses("gpu2.example", addresses, section)
    assert (words in (why or "")) if words else why is None


def test_a_listed_name_may_have_any_address_that_is_not_refused() -> None:
    assert refused_addresses("gpu1.example", ["11.0.0.1"], LISTED) is None
    assert "credentials" in (refused_addresses("gpu1.example", ["169.254.169.254"], LISTED) or "")


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.lists(st.sampled_from("dox"), min_size=4, max_size=4))
def test_every_old_spelling_of_an_address_is_seen_through(number: int, parts: int, bases: list[str]) -> None:
    first = [(number >> (24 - 8 * at)) & 255 for at in range(parts - 1)]
    numbers = [*first, number & (256 ** (5 - parts) - 1)]
    spellings: dict[str, Callable[[int], str]] = {"d": str, "o": lambda part: f"0{part:o}", "x": hex}
    text = ".".join(spellings[base](part) for base, part in zip(bases, numbers, strict=False))
    assert address_of(text) == IPv4Address(number)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "gpu1",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "4294967296",
        "0x1ffffffff",
        "08",
        "1..2",
        "0xg",
        "-1",
        "1e3",
        "1" * 400,
    ],
)
def test_names_are_not_taken_for_addresses(name: str) -> None:
    assert address_of(name) is None


@given(st.text(max_size=50))
def test_judging_never_raises(host: str) -> None:
    address_of(host)


def test_one_server_in_two_spellings_is_one_server() -> None:
    for host in ("127.1", "2130706433", "0x7f.1", "0177.0.0.1"):
        assert normalise_url(f"http://{host}:1") == "http://127.0.0.1:1"


def test_the_configuration_names_every_server_that_points_where_none_may_be() -> None:
    text = "servers: [{id: a, url: 'http://a'}, {id: b, url: 'http://0xA9FEA9FE'}, {id: c, url: 'http://[fe80::1]:1'}]"
    with pytest.raises(ConfigError) as caught:
        load(text, {}, {}, source="f.yml")
    assert [(each.path, each.source) for each in caught.value.problems] == [
        ("servers.1.url", "f.yml:1"),
        ("servers.2.url", "f.yml:1"),
    ]
    fine = "security: {backends: {allow_link_local: true}}\nservers: [{id: c, url: 'http://[fe80::1]:1'}]"
    assert isinstance(load(fine, {}, {}, source="f.yml").config, Config)
