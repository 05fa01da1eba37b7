"""A packet that belongs to a connection: what is shown to conntrack so that it changes what it remembers of one.

It is made from the connection's own tuple and goes nowhere.  It is an answer, because conntrack takes one only for
what it knows: it neither begins a connection nor passes for the beginning of one.  Formats: RFC 791, 768, 9293, 792,
8200, 4443.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

from ovsfw.openflow.tracked import Tuple

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_NOBODY = bytes(12)
_BOTH_IPV6 = 32
_IP, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ACK = 0x10


def answer_of(key: Tuple) -> bytes | None:
    """An Ethernet frame with an answer in a connection.

    None for a protocol whose packets cannot be made up (SCTP has a secret; others have a state of their own).
    """
    make = {TCP: _tcp, UDP: _udp, ICMP: _icmp, ICMPV6: _icmp}.get(key.protocol)
    if make is None:
        return None
    segment, at = make(key)
    ends = _packed(key.destination) + _packed(key.source)
    if len(ends) == _BOTH_IPV6:
        kind, pseudo = _IPV6, ends + struct.pack("!I3xB", len(segment), key.protocol)
        header = struct.pack("!IHBB", 6 << 28, len(segment), key.protocol, 64) + ends
    else:
        kind, pseudo = _IP, ends + struct.pack("!xBH", key.protocol, len(segment))
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, key.protocol, 0) + ends
        header = sealed(header, 10, header)
    return _NOBODY + kind + header + sealed(segment, at, segment if key.protocol == ICMP else pseudo + segment)


@lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _tcp(key: Tuple) -> tuple[bytes, int]:
    """A bare ACK: it begins and ends nothing."""
    ends = key.destination_port, key.source_port
    return struct.pack("!HHIIBBHHH", *ends, 0, 0, 5 << 4, _ACK, 0xFFFF, 0, 0), 16


def _udp(key: Tuple) -> tuple[bytes, int]:
    return struct.pack("!HHHH", key.destination_port, key.source_port, 8, 0), 6


def _icmp(key: Tuple) -> tuple[bytes, int]:
    return struct.pack("!BBHHH", *key.answer, 0, key.source_port, 0), 2


def sealed(data: bytes, at: int, covered: bytes) -> bytes:
    """The data with the checksum (RFC 1071) of what is covered in its place; 0 is sent as all ones (RFC 768).

    A sum of 16-bit words with the carries added in is the number that they are together, modulo 65535.
    """
    total = int.from_bytes(covered + bytes(len(covered) % 2), "big") % 0xFFFF
    checksum = 0xFFFF - total
    return data[:at] + checksum.to_bytes(2, "big") + data[at + 2 :]
