"""Addresses: IP versions, prefixes and sets of them, and MAC addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import netaddr


class Family(IntEnum):
    """An ethertype of the Neutron API, as an IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        """Width of an address."""
        return 32 if self is Family.IPV4 else 128

    @property
    def ethertype(self) -> str:
        """The Neutron API's word: IPv4 or IPv6."""
        return f"IPv{int(self)}"


class Prefix(NamedTuple):
    """An address or a prefix; `value` has no bits below `length`."""

    family: Family
    value: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `10.0.0.1`, `10.0.0.0/24`, `2001:db8::/64`; bits below the prefix length are cleared, as Neutron does.

        Raises ValueError when the text is no address or prefix.
        """
        try:
            network = netaddr.IPNetwork(text)
        except (netaddr.AddrFormatError, ValueError) as error:
            raise ValueError(f"{text!r} is not an IP address or prefix") from error
        return cls(Family(network.version), int(network.network), network.prefixlen)

    @property
    def is_host(self) -> bool:
        """Exactly one address."""
        return self.length == self.family.bits

    @property
    def mask(self) -> int:
        """The netmask as an integer."""
        bits = self.family.bits
        return ((1 << self.length) - 1) << (bits - self.length)

    def contains(self, other: Prefix) -> bool:
        """Whether every address of `other` is in this prefix.

        >>> Prefix.parse("10.0.0.0/8").contains(Prefix.parse("10.1.2.3"))
        True
        """
        return self.family == other.family and self.length <= other.length and (other.value & self.mask) == self.value

    def __str__(self) -> str:
        """`10.0.0.1` for one address, `10.0.0.0/24` for more."""
        address = str(netaddr.IPAddress(self.value, 4 if self.family is Family.IPV4 else 6))
        return address if self.is_host else f"{address}/{self.length}"


LINK_LOCAL = Prefix(Family.IPV6, 0xFE80 << 112, 10)


class AddressSet:
    """Prefixes, to be asked whether they contain an address: one look-up for each length there is."""

    __slots__ = ("_by_length",)

    def __init__(self, prefixes: Iterable[Prefix] = ()) -> None:
        self._by_length: dict[tuple[Family, int], set[int]] = {}
        for prefix in prefixes:
            self.add(prefix)

    def add(self, prefix: Prefix) -> None:
        """One more; one that is there already is fine."""
        self._by_length.setdefault((prefix.family, prefix.length), set()).add(prefix.value)

    def contains(self, other: Prefix) -> bool:
        """Whether one of the prefixes contains every address of `other`."""
        return any(
            family is other.family and length <= other.length and other.value >> shift << shift in values
            for (family, length), values in self._by_length.items()
            for shift in (family.bits - length,)
        )


_MAC = re.compile(r"([0-9a-f]{2}([:-])([0-9a-f]{2}\2){4}[0-9a-f]{2})|([0-9a-f]{4}\.){2}[0-9a-f]{4}", re.IGNORECASE)


def parse_mac(text: str) -> int:
    """Read `52:54:00:00:00:01` (also with dashes, or Cisco's dots).  Raises ValueError for anything else, and for 0.

    Multicast addresses are refused too: no host may send from one (IEEE 802.3 section 3.2.3).
    """
    # netaddr also takes short forms, among them 52:54:00 for 00:52:00:54:00:00, which nobody means.
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address")
    mac = int(netaddr.EUI(text, version=48))
    if mac == 0 or mac >> 40 & 1:
        raise ValueError(f"{text!r} is a multicast or null MAC address; a port needs a unicast one")
    return mac


def format_mac(mac: int) -> str:
    """`52:54:00:00:00:01`.

    >>> format_mac(0x525400000001)
    '52:54:00:00:00:01'
    """
    return ":".join(f"{byte:02x}" for byte in mac.to_bytes(6, "big"))


def link_local(mac: int) -> Prefix:
    """The IPv6 link-local address that a MAC makes (RFC 4291, appendix A: modified EUI-64).

    >>> str(link_local(0x525400000001))
    'fe80::5054:ff:fe00:1'
    """
    high, low = mac >> 24, mac & 0xFFFFFF
    return Prefix(Family.IPV6, 0xFE80 << 112 | (high ^ 0x020000) << 40 | 0xFFFE << 24 | low, 128)
