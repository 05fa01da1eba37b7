"""Copies of packets for a program: the meter that limits them, the messages they come in (`action.Copy` sends them).

All of it is Open vSwitch's extension of OpenFlow (include/openflow/nicira-ext.h: NXT_PACKET_IN2).  A
meter in the action limits the copies, never the traffic, and in the datapath, before a packet costs anything.  Bytes
in, bytes out.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ovsfw.openflow import match as m
from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.match import Term, UnknownFieldError, decode_match

_NICIRA = 0x2320
_SET_CONTROLLER_ID, _SET_FORMAT, _PACKET_IN2, _FORMAT = 20, 16, 30, 2
_PACKET, _TABLE, _COOKIE, _METADATA = 0, 3, 4, 6
_VENDOR = struct.Struct("!II")
_PROPERTY = struct.Struct("!HH")
_METER_FLAGS: int = ofproto.OFPMF_PKTPS | ofproto.OFPMF_BURST
METER_EXISTS: str = "OFPMMFC_METER_EXISTS"


# Where a packet that came through a tunnel came from and went to (lib/meta-flow.h, MFF_TUN_*): headers of match fields
# without the bit and the length at their end.
_TUNNEL = frozenset(
    struct.pack("!HB", oxm_class, number << 1)
    for oxm_class, number in ((0x8000, 38), (1, 31), (1, 32), (1, 109), (1, 110))
)


class PacketIn(NamedTuple):
    """A copy of a packet, which may be cut off, and the flow that sent it.

    `registers` are those that were not 0; `in_port` is by which port the packet came, 0 when that is not told.
    """

    table: int
    cookie: int
    packet: bytes
    registers: dict[int, int]
    in_port: int = 0
    from_tunnel: bool = False


def add_meter(meter: int, rate: int, burst: int, xid: int) -> bytes:
    """A meter of packets a second; one that exists is refused as METER_EXISTS."""
    return _meter(ofproto.OFPMC_ADD, meter, (rate, burst), xid)


def change_meter(meter: int, rate: int, burst: int, xid: int) -> bytes:
    """The same of a meter that exists; it begins with a full burst again."""
    return _meter(ofproto.OFPMC_MODIFY, meter, (rate, burst), xid)


def _meter(command: int, meter: int, limit: tuple[int, int], xid: int) -> bytes:
    band = struct.pack("!HHII4x", ofproto.OFPMBT_DROP, 16, *limit)
    return wire.message(ofproto.OFPT_METER_MOD, xid, struct.pack("!HHI", command, _METER_FLAGS, meter) + band)


def subscription(controller: int, fragments: int, length: int, xid: int) -> Iterator[bytes]:
    """What makes a connection that of a controller: its id, the form, and that it wants packets.

    `fragments` is how the switch handles fragments now, which is set together with the last.
    """
    yield _vendor(_SET_CONTROLLER_ID, struct.pack("!6xH", controller), xid)
    yield _vendor(_SET_FORMAT, struct.pack("!I", _FORMAT), xid + 1)
    yield wire.message(ofproto.OFPT_SET_CONFIG, xid + 2, struct.pack("!HH", fragments, length))


def _vendor(kind: int, body: bytes, xid: int) -> bytes:
    return wire.message(ofproto.OFPT_EXPERIMENTER, xid, _VENDOR.pack(_NICIRA, kind) + body)


def read_packet_in(message: wire.Message) -> PacketIn | None:
    """A copy; None for any other message.  Raises WireError when its lengths cannot be."""
    if message.type != ofproto.OFPT_EXPERIMENTER or message.body[:8] != _VENDOR.pack(_NICIRA, _PACKET_IN2):
        return None
    found = dict(_properties(message.body))
    metadata = found.get(_METADATA, b"")
    known = {term.field: term.value for term in _terms(metadata)}
    return PacketIn(
        int.from_bytes(found.get(_TABLE, b"")[:1], "big"),
        int.from_bytes(found.get(_COOKIE, b"")[-8:], "big"),
        found.get(_PACKET, b""),
        {m.REGISTERS.index(field): value for field, value in known.items() if field in m.REGISTERS},
        known.get(m.IN_PORT, 0),
        any(bytes((*field[:2], field[2] & 0xFE)) in _TUNNEL for field in _fields(metadata)),
    )


def _properties(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = _VENDOR.size
    while at + _PROPERTY.size <= len(body):
        kind, size = _PROPERTY.unpack_from(body, at)
        if not _PROPERTY.size <= size <= len(body) - at:
            raise wire.WireError(f"a property of {size} bytes cannot be")
        yield kind, body[at + _PROPERTY.size : at + size]
        at += (size + 7) // 8 * 8


def _fields(metadata: bytes) -> Iterator[bytes]:
    """What is known of a packet, field by field."""
    at = 0
    while at + 4 <= len(metadata):
        end = at + 4 + metadata[at + 3]
        yield metadata[at:end]
        at = end


def _terms(metadata: bytes) -> Iterator[Term]:
    """The same read; fields that are unknown here are skipped."""
    for field in _fields(metadata):
        with contextlib.suppress(UnknownFieldError):
            yield from decode_match(field)
