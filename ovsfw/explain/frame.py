"""Ethernet frames as far as a filter looks into them.  Pure.

A frame may be cut off anywhere: what is not there is None.  Sources: IEEE 802.1Q, RFC 791, RFC 826, RFC 8200 section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ovsfw.policy import protocols
from ovsfw.policy.addresses import Family, Prefix, format_mac
from ovsfw.policy.verdict import ICMP, ICMPV6, TCP, Connection
from ovsfw.policy.wording import connection_text

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
_TAGS = frozenset({0x8100, 0x88A8})
_ADDRESSES = 12
_VLAN_BITS = 0xFFF
SYN, ACK = 0x02, 0x10
_FRAGMENT_HEADER, _AUTHENTICATION_HEADER = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT_HEADER, _AUTHENTICATION_HEADER, 60})
_LATER_FRAGMENT = {Family.IPV4: 0x1FFF, Family.IPV6: 0xFFF8}


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame says of itself.

    `vlan` is 0 without a tag.  `source` and `destination` are of IP, or the addresses inside ARP.  Ports, and ICMP's
    type and code, are None where there are none (another protocol, a later fragment, cut off).
    """

    source_mac: int
    destination_mac: int
    ether_type: int
    vlan: int = 0
    source: Prefix | None = None
    destination: Prefix | None = None
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    tcp_flags: int | None = None
    is_later_fragment: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether it cannot be the first packet of a TCP connection."""
        return self.tcp_flags is not None and self.tcp_flags & (SYN | ACK) != SYN

    def connection(self, sender: str | None, receiver: str | None) -> Connection | None:
        """The connection whose first packet it would be, between two ports of the policy; None when it is not IP."""
        if self.source is None or self.destination is None or self.protocol is None:
            return None
        return Connection(
            sender,
            receiver,
            self.source,
            self.destination,
            self.protocol,
            self.source_port or 0,
            self.destination_port or 0,
            self.icmp_type or 0,
            self.icmp_code or 0,
        )

    def __str__(self) -> str:
        """`tcp 10.9.0.2:40000 -> 10.9.0.1:22`, `arp 10.9.0.2 -> 10.9.0.1`, `type 0x88cc 52:54:... -> 01:80:...`."""
        connection = self.connection(None, None)
        if connection is not None and self.is_later_fragment:
            return f"{protocols.name(self.protocol)} fragment {self.source} -> {self.destination}"
        if connection is not None:
            return connection_text(connection)
        if self.ether_type == ARP and self.source is not None:
            return f"arp {self.source} -> {self.destination}"
        return f"type {self.ether_type:#06x} {format_mac(self.source_mac)} -> {format_mac(self.destination_mac)}"


def read_frame(data: bytes) -> Frame:
    """Read a frame.  Raises ValueError when there is not even a whole Ethernet header."""
    at, vlan = _ADDRESSES, 0
    kind = _number(data, at, 2)
    while kind in _TAGS:
        vlan = vlan or (_number(data, at + 2, 2) or 0) & _VLAN_BITS
        at += 4
        kind = _number(data, at, 2)
    if kind is None:
        raise ValueError(f"{len(data)} bytes are no Ethernet frame")
    frame = Frame(int.from_bytes(data[6:12], "big"), int.from_bytes(data[:6], "big"), kind, vlan)
    readers = {IPV4: _ipv4, ARP: _arp, IPV6: _ipv6}
    return readers[kind](frame, data[at + 2 :]) if kind in readers else frame


def _number(data: bytes, at: int, size: int) -> int | None:
    piece = data[at : at + size]
    return int.from_bytes(piece, "big") if len(piece) == size else None


def _ends(frame: Frame, data: bytes, family: Family, source: int, destination: int) -> Frame:
    found = (_number(data, at, family.bits // 8) for at in (source, destination))
    ends = [None if value is None else Prefix(family, value, family.bits) for value in found]
    return replace(frame, source=ends[0], destination=ends[1])


def _arp(frame: Frame, data: bytes) -> Frame:
    return _ends(frame, data, Family.IPV4, 14, 24)


def _ipv4(frame: Frame, data: bytes) -> Frame:
    frame = replace(_ends(frame, data, Family.IPV4, 12, 16), protocol=_number(data, 9, 1))
    later = bool((_number(data, 6, 2) or 0) & _LATER_FRAGMENT[Family.IPV4])
    length = 4 * ((_number(data, 0, 1) or 0) & 0xF)
    return replace(frame, is_later_fragment=True) if later else _transport(frame, data[length:])


def _ipv6(frame: Frame, data: bytes) -> Frame:
    """Past the extension headers, of which there may be any number."""
    frame = _ends(frame, data, Family.IPV6, 8, 24)
    following, at = _number(data, 6, 1), 40
    while following in _EXTENSIONS:
        size = _number(data, at + 1, 1) or 0
        if following == _FRAGMENT_HEADER:
            offset = (_number(data, at + 2, 2) or 0) & _LATER_FRAGMENT[Family.IPV6]
            frame, size = replace(frame, is_later_fragment=bool(offset)), 0
        length = 4 * (size + 2) if following == _AUTHENTICATION_HEADER else 8 * (size + 1)
        following, at = _number(data, at, 1), at + length
    frame = replace(frame, protocol=following)
    return frame if frame.is_later_fragment else _transport(frame, data[at:])


def _transport(frame: Frame, data: bytes) -> Frame:
    if frame.protocol in protocols.WITH_PORTS:
        ports = replace(frame, source_port=_number(data, 0, 2), destination_port=_number(data, 2, 2))
        return replace(ports, tcp_flags=_number(data, 13, 1)) if frame.protocol == TCP else ports
    if frame.protocol in (ICMP, ICMPV6):
        return replace(frame, icmp_type=_number(data, 0, 1), icmp_code=_number(data, 1, 1))
    return frame
