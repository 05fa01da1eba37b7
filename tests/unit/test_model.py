"""The values of the policy model."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.policy.addresses import Family, Prefix, format_mac, link_local, parse_mac
from ovsfw.policy.model import AddressGroup, Claim, Policy, Port, RemoteAddressGroup, RemoteGroup, member_addresses

MAC, OTHER = 0x525400000001, 0x00005E000101
# Close together, so that prefixes contain each other now and then.
v4 = st.builds(
    lambda value, length: ipaddress.ip_network((value, length), strict=False),
    st.integers(0x0A000000, 0x0A00000F),
    st.integers(0, 32),
)
v6 = st.builds(
    lambda value, length: ipaddress.ip_network((value, length), strict=False),
    st.integers(0x20010DB8 << 96, (0x20010DB8 << 96) + 15),
    st.integers(0, 128),
)
networks = st.one_of(v4, v6)


@given(networks, networks)
def test_prefixes_are_those_of_python(one: ipaddress.IPv4Network, other: ipaddress.IPv4Network) -> None:
    mine, yours = Prefix.parse(str(one)), Prefix.parse(str(other))
    assert (mine.value, mine.length, mine.family) == (int(one.network_address), one.prefixlen, one.version)
    assert mine.mask == int(one.netmask)
    assert mine.is_host is (one.num_addresses == 1)
    assert mine.contains(yours) is (one.version == other.version and other.subnet_of(one))
    assert Prefix.parse(str(mine)) == mine


def test_bits_below_the_prefix_length_are_cleared() -> None:
    assert Prefix.parse("10.1.2.3/8") == Prefix.parse("10.0.0.0/8")
    assert str(Prefix.parse("2001:db8::1/64")) == "2001:db8::/64"


@given(st.integers(1, 0xFEFFFFFFFFFF).filter(lambda mac: not mac >> 40 & 1))
def test_macs_come_back(mac: int) -> None:
    text = format_mac(mac)
    assert parse_mac(text) == mac
    assert parse_mac(text.replace(":", "-").upper()) == mac
    own = link_local(mac)
    assert ipaddress.ip_address(own.value) in ipaddress.ip_network("fe80::/64")
    # RFC 4291, appendix A: ff:fe in the middle, and the universal bit turned over.
    assert own.value >> 24 & 0xFFFF == 0xFFFE
    assert (own.value >> 16 & 0xFFFFFF000000) ^ (0x02 << 40) == mac & 0xFFFFFF000000
    assert own.value & 0xFFFFFF == mac & 0xFFFFFF


def port() -> Port:
    pairs = (
        Claim(OTHER, Prefix.parse("10.0.0.200")),
        Claim(MAC, Prefix.parse("10.0.0.1")),
        Claim(MAC, Prefix.parse("0.0.0.0/0")),
        Claim(MAC, Prefix.parse("::/0")),
    )
    return Port("p", MAC, (Prefix.parse("2001:db8::1"), Prefix.parse("10.0.0.1")), pairs, ("web",))


def test_what_a_port_claims_is_sorted_and_said_once() -> None:
    found = port().claims
    assert list(found) == sorted(set(found))
    assert [f"{format_mac(mac)} {prefix}" for mac, prefix in found] == [
        "00:00:5e:00:01:01 10.0.0.200",
        "52:54:00:00:00:01 0.0.0.0/0",
        "52:54:00:00:00:01 10.0.0.1",
        "52:54:00:00:00:01 ::/0",
        "52:54:00:00:00:01 2001:db8::1",
    ]
    assert port().macs == (OTHER, MAC)


def test_members_of_a_group_are_what_its_ports_have_but_not_the_world() -> None:
    policy = Policy({"p": port(), "q": Port("q", OTHER, (Prefix.parse("10.0.0.9"),))})
    assert {str(prefix) for prefix in member_addresses(port())} == {"10.0.0.1", "10.0.0.200", "2001:db8::1"}
    assert set(policy.members(RemoteGroup("web"))) == set(member_addresses(port()))
    assert not list(policy.members(RemoteGroup("nobody")))


def test_members_of_an_address_group_are_its_prefixes_the_world_too() -> None:
    prefixes = (Prefix.parse("0.0.0.0/0"), Prefix.parse("10.0.0.0/8"))
    policy = Policy(address_groups={"a": AddressGroup("a", prefixes=prefixes)})
    assert tuple(policy.members(RemoteAddressGroup("a"))) == prefixes


@pytest.mark.parametrize("family", Family)
def test_a_family_knows_its_size_and_name(family: Family) -> None:
    assert (family.bits, family.ethertype) == {4: (32, "IPv4"), 6: (128, "IPv6")}[family]
