"""Frames made by hand, right or wrong in every byte.  Pure.

MAC addresses are 48-bit integers.  Lengths and checksums are always right, so that nothing but the lie under test can
be the reason why a frame is dropped.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.verdict import ICMPV6, TCP, UDP

EVERYBODY = 0xFFFFFFFFFFFF
ARP_TYPE, IP_TYPE = 0x0806, {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
VLAN_TYPE, SERVICE_VLAN_TYPE = 0x8100, 0x88A8
REQUEST, REPLY = 1, 2
SOURCE_OPTION, TARGET_OPTION = 1, 2
HOP_BY_HOP, DESTINATION_OPTIONS = 0, 60
# The first bytes of 802.2 with SNAP for an Ethernet type (IEEE 802 section 10.5), and of a spanning tree message.
_SNAP = bytes.fromhex("aaaa03000000")
BRIDGE_MESSAGE = bytes.fromhex("424203") + bytes(35)
# Of the Ethernet header; more fragments, or an offset; and where the checksum is, by protocol.
_HEAD = 14
_FRAGMENT = 0x3FFF
_CHECKSUM_AT = {TCP: 16, UDP: 6}
_EMPTY_OPTIONS = bytes.fromhex("00010400000000")  # length 0 (8 bytes), PadN


def mac_bytes(mac: int) -> bytes:
    """Six bytes."""
    return mac.to_bytes(6, "big")


def ethernet(receiver: int, sender: int, kind: int, body: bytes) -> bytes:
    """A frame with an Ethernet type."""
    return mac_bytes(receiver) + mac_bytes(sender) + kind.to_bytes(2, "big") + body


def tagged(frame: bytes, vlan: int, kind: int = VLAN_TYPE) -> bytes:
    """A frame with a tag put in front of its type."""
    return frame[:12] + struct.pack("!HH", kind, vlan) + frame[12:]


def llc(frame: bytes, body: bytes) -> bytes:
    """An IEEE 802.3 frame with the addresses of another: a length instead of a type."""
    return frame[:12] + struct.pack("!H", len(body)) + body


def snap(frame: bytes) -> bytes:
    """A frame with its type in an 802.2 SNAP header."""
    return llc(frame, _SNAP + frame[12:])


def arp(operation: int, sender: tuple[int, int], target: tuple[int, int]) -> bytes:
    """ARP for IPv4 over Ethernet (RFC 826); ends are a MAC and an IPv4 address as an integer."""
    ends = b"".join(mac_bytes(mac) + address.to_bytes(4, "big") for mac, address in (sender, target))
    return struct.pack("!HHBBH", 1, IP_TYPE[Family.IPV4], 6, 4, operation) + ends


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071).

    >>> hex(checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _bytes(address: Prefix) -> bytes:
    return address.value.to_bytes(address.family.bits // 8, "big")


def ip(source: Prefix, destination: Prefix, protocol: int, body: bytes) -> bytes:
    """IPv4 or IPv6, with the highest hop limit."""
    ends = _bytes(source) + _bytes(destination)
    if source.family is Family.IPV6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + ends + body
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(body), 0, 0, 255, protocol)
    return head + struct.pack("!H", checksum(head + b"\0\0" + ends)) + ends + body


def _with_checksum(source: Prefix, destination: Prefix, protocol: int, body: bytes, at: int) -> bytes:
    """Write the checksum over the pseudo header (RFC 8200 section 8.1; the sum is the same for IPv4's) at an offset."""
    pseudo = _bytes(source) + _bytes(destination) + struct.pack("!II", len(body), protocol)
    return body[:at] + struct.pack("!H", checksum(pseudo + body) or 0xFFFF) + body[at + 2 :]


def marked(frame: bytes, mark: bytes) -> bytes:
    """A frame that ends with a mark, by which it is known where it comes out.

    In TCP and UDP that is data, since the kernel's datapath cuts a frame that it tracks to the length that IP says; in
    all else it follows what the frame says of its length.  `mark` has an even length.
    """
    for family, kind in IP_TYPE.items():
        if int.from_bytes(frame[12:14], "big") == kind:
            return frame[:_HEAD] + _longer(family, frame[_HEAD:], mark)
    return frame + mark


def _longer(family: Family, packet: bytes, mark: bytes) -> bytes:
    """An IP packet with more data, where it is TCP or UDP; else, and in a fragment, the mark is behind it."""
    head, protocol, size = (20, packet[9], 4) if family is Family.IPV4 else (40, packet[6], 16)
    source, destination = (
        Prefix(family, int.from_bytes(packet[at : at + size], "big"), family.bits)
        for at in (head - 2 * size, head - size)
    )
    while family is Family.IPV6 and protocol in (HOP_BY_HOP, DESTINATION_OPTIONS):
        protocol, head = packet[head], head + 8 * (packet[head + 1] + 1)
    is_fragment = family is Family.IPV4 and int.from_bytes(packet[6:8], "big") & _FRAGMENT
    if protocol not in _CHECKSUM_AT or is_fragment:
        return packet + mark
    front, body, place = bytearray(packet[:head]), packet[head:] + mark, _CHECKSUM_AT[protocol]
    if family is Family.IPV4:
        front[2:4] = struct.pack("!H", head + len(body))
        front[10:12] = bytes(2)
        front[10:12] = struct.pack("!H", checksum(bytes(front)))
    else:
        front[4:6] = struct.pack("!H", head - 40 + len(body))
    if protocol == UDP:
        body = body[:4] + struct.pack("!H", len(body)) + body[6:]
    body = body[:place] + bytes(2) + body[place + 2 :]
    return bytes(front) + _with_checksum(source, destination, protocol, body, place)


def udp(source: Prefix, destination: Prefix, ports: tuple[int, int], data: bytes = b"") -> bytes:
    """A UDP datagram without its IP header."""
    body = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    return _with_checksum(source, destination, UDP, body, 6)


class Segment(NamedTuple):
    """What of a TCP segment rarely matters; `ack` is said only with the flag."""

    seq: int = 1000
    ack: int = 2000
    options: bytes = b""
    data: bytes = b""


def tcp(
    source: Prefix, destination: Prefix, ports: tuple[int, int], flags: int, segment: Segment | None = None
) -> bytes:
    """A TCP segment without its IP header; `flags` as in RFC 9293 section 3.1."""
    seq, ack, options, data = segment or Segment()
    head = struct.pack("!HHII", *ports, seq, ack if flags & 0x10 else 0)
    rest = struct.pack("!BBHHH", (5 + len(options) // 4) << 4, flags, 65535, 0, 0)
    return _with_checksum(source, destination, TCP, head + rest + options + data, 16)


def icmpv6(source: Prefix, destination: Prefix, kind: tuple[int, int], body: bytes) -> bytes:
    """ICMPv6 of a type and code, without its IP header."""
    return _with_checksum(source, destination, ICMPV6, bytes(kind) + b"\0\0" + body, 2)


def option(kind: int, mac: int) -> bytes:
    """A link-layer address option of neighbour discovery (RFC 4861 section 4.6.1)."""
    return bytes((kind, 1)) + mac_bytes(mac)


def neighbour(target: Prefix, *options: bytes, flags: int = 0) -> bytes:
    """What follows the ICMPv6 header in neighbour solicitations and advertisements."""
    return flags.to_bytes(4, "big") + _bytes(target) + b"".join(options)


def extended(following: int, body: bytes) -> bytes:
    """A body behind an IPv6 header of hop-by-hop or destination options that says nothing."""
    return bytes((following,)) + _EMPTY_OPTIONS + body


def group_mac(group: Prefix) -> int:
    """Where an IPv6 multicast address goes (RFC 2464 section 7)."""
    return 0x333300000000 | group.value & 0xFFFFFFFF
