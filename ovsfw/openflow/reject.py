"""The answer to a packet that is rejected: a TCP reset, or ICMP's "administratively prohibited".

Pure: a frame comes in as an endpoint or the world has sent it, a frame goes out as the one it was for would send it.
None goes out where an answer could begin a storm or reach somebody who has not asked: RFC 1122 section 3.2.2, RFC 1812
section 4.3.2.7 and RFC 4443 section 2.4(e).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from ovsfw.openflow.packet import ICMP, ICMPV6, TCP, sealed

_ETHERNET, _IP_HEADER, _IPV6_HEADER, _TCP_HEADER = 14, 20, 40, 20
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_HOP_LIMIT = 64
_IPV4, _IPV6 = 4, 6
_TAGGED = b"\x81\x00"
_EVERYBODY = ipaddress.IPv4Address("255.255.255.255")
_FRAGMENT_OFFSET = 0x1FFF
# What asks for something; all else in ICMP may be an error, and no error is answered.
_REQUESTS = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128})}
# Headers of IPv6 behind which anything can be, an error or a later fragment as well.
_EXTENSIONS = frozenset({0, 43, 44, 50, 51, 60, 135, 139, 140})
_PROHIBITED = {_IPV4: (3, 13), _IPV6: (1, 1)}  # RFC 1812 section 5.2.7.1, RFC 4443 section 3.1
# An error fits into what every host takes (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4(c)).
_LONGEST = {_IPV4: 576 - _IP_HEADER - 8, _IPV6: 1280 - _IPV6_HEADER - 8}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Datagram(NamedTuple):
    """What is rejected: an IP packet; `size` is what its header says of the payload, of which some may be missing."""

    version: int
    source: _Address
    destination: _Address
    protocol: int
    payload: bytes
    size: int
    whole: bytes


def answer(frame: bytes) -> bytes | None:
    """The frame for the sender, with its VLAN tag if it has one, or None where there must be no answer."""
    if frame[12:14] == _TAGGED:
        said = _untagged(frame[:12] + frame[16:])
        return None if said is None else said[:12] + frame[12:16] + said[12:]
    return _untagged(frame)


def _untagged(frame: bytes) -> bytes | None:
    if len(frame) < _ETHERNET or (frame[0] | frame[6]) & 1:
        return None
    datagram = {b"\x08\x00": _ip, b"\x86\xdd": _ipv6}.get(frame[12:14], lambda _: None)(frame[_ETHERNET:])
    if datagram is None or not (_is_one(datagram.source) and _is_one(datagram.destination)):
        return None
    said = _reset(datagram) if datagram.protocol == TCP else _prohibited(datagram)
    return None if said is None else frame[6:12] + frame[:6] + frame[12:14] + said


def _is_one(address: _Address) -> bool:
    """Whether it is the address of one host."""
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address == _EVERYBODY)


def _ip(data: bytes) -> _Datagram | None:
    if len(data) < _IP_HEADER or data[0] >> 4 != _IPV4:
        return None
    length, fragment = struct.unpack_from("!H2xH", data, 2)
    header = (data[0] & 15) * 4
    if header < _IP_HEADER or length < header or fragment & _FRAGMENT_OFFSET:
        return None
    source, destination = (ipaddress.IPv4Address(data[at : at + 4]) for at in (12, 16))
    whole = data[:length]
    return _Datagram(_IPV4, source, destination, data[9], whole[header:], length - header, whole)


def _ipv6(data: bytes) -> _Datagram | None:
    if len(data) < _IPV6_HEADER or data[0] >> 4 != _IPV6 or data[6] in _EXTENSIONS:
        return None
    (size,) = struct.unpack_from("!H", data, 4)
    source, destination = (ipaddress.IPv6Address(data[at : at + 16]) for at in (8, 24))
    whole = data[: _IPV6_HEADER + size]
    return _Datagram(_IPV6, source, destination, data[6], whole[_IPV6_HEADER:], size, whole)


def _reset(datagram: _Datagram) -> bytes | None:
    """RFC 9293 section 3.5.2: where it was acknowledged, from there; else acknowledging all that has come."""
    if len(datagram.payload) < _TCP_HEADER:
        return None
    sport, dport, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", datagram.payload)
    if flags & _RST:
        return None
    length = max(datagram.size - (offset >> 4) * 4, 0) + bool(flags & _SYN) + bool(flags & _FIN)
    if flags & _ACK:
        numbers = acknowledged, 0, 5 << 4, _RST
    else:
        numbers = 0, (sequence + length) & 0xFFFFFFFF, 5 << 4, _RST | _ACK
    segment = struct.pack("!HHIIBBHHH", dport, sport, *numbers, 0, 0, 0)
    return _send(datagram, TCP, sealed(segment, 16, _pseudo(datagram, TCP, len(segment)) + segment))


def _prohibited(datagram: _Datagram) -> bytes | None:
    asks = _REQUESTS.get(datagram.protocol)
    if asks is not None and (not datagram.payload or datagram.payload[0] not in asks):
        return None
    quoted = datagram.whole[: _LONGEST[datagram.version]]
    message = struct.pack("!BBHI", *_PROHIBITED[datagram.version], 0, 0) + quoted
    if datagram.version == _IPV4:
        return _send(datagram, ICMP, sealed(message, 2, message))
    return _send(datagram, ICMPV6, sealed(message, 2, _pseudo(datagram, ICMPV6, len(message)) + message))


def _ends(datagram: _Datagram) -> bytes:
    return datagram.destination.packed + datagram.source.packed


def _pseudo(datagram: _Datagram, protocol: int, length: int) -> bytes:
    """What TCP and ICMPv6 sum up besides themselves."""
    form = "!xBH" if datagram.version == _IPV4 else "!I3xB"
    numbers = (protocol, length) if datagram.version == _IPV4 else (length, protocol)
    return _ends(datagram) + struct.pack(form, *numbers)


def _send(datagram: _Datagram, protocol: int, payload: bytes) -> bytes:
    """As the one it was for would send it."""
    if datagram.version == _IPV6:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, _HOP_LIMIT)
        return head + _ends(datagram) + payload
    length = _IP_HEADER + len(payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, _HOP_LIMIT, protocol, 0) + _ends(datagram)
    return sealed(header, 10, header) + payload
