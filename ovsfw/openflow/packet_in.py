"""Copies of packets for a program: the action that sends them, the meter that limits them, the messages they come in.

All of it is Open vSwitch's extension of OpenFlow (include/openflow/nicira-ext.h: NXAST_CONTROLLER2, NXT_PACKET_IN2).  A
meter in the action limits the copies, never the traffic, and in the datapath, before a packet costs anything.  Bytes
in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ovsfw.openflow import match as m
from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.match import UnknownFieldError, decode_match

_NICIRA = 0x2320
_CONTROLLER2, _SET_CONTROLLER_ID, _SET_FORMAT, _PACKET_IN2, _FORMAT = 37, 20, 16, 30, 2
_MAX_LEN, _CONTROLLER_ID, _METER_ID = 0, 1, 5
_PACKET, _TABLE, _COOKIE, _METADATA = 0, 3, 4, 6
_VENDOR = struct.Struct("!II")
_PROPERTY = struct.Struct("!HH")
_METER_FLAGS: int = ofproto.OFPMF_PKTPS | ofproto.OFPMF_BURST
METER_EXISTS: str = "OFPMMFC_METER_EXISTS"


class PacketIn(NamedTuple):
    """A copy of a packet, which may be cut off, and the flow that sent it; `registers` are those that were not 0."""

    table: int
    cookie: int
    packet: bytes
    registers: dict[int, int]


def _short(kind: int, value: int) -> bytes:
    """A property of 16 bits, as Open vSwitch writes it back: its padding counts."""
    return _PROPERTY.pack(kind, 8) + struct.pack("!HH", value, 0)


def copy_instructions(controller: int, meter: int, length: int) -> bytes:
    """The instructions that send the first `length` bytes of a packet to one controller, and then drop it.

    As often as a meter lets them, which must exist.
    """
    properties = _short(_MAX_LEN, length) + _short(_CONTROLLER_ID, controller)
    properties += _PROPERTY.pack(_METER_ID, 8) + meter.to_bytes(4, "big")
    head = struct.pack("!HHIH6x", ofproto.OFPAT_EXPERIMENTER, 16 + len(properties), _NICIRA, _CONTROLLER2)
    return struct.pack("!HH4x", ofproto.OFPIT_APPLY_ACTIONS, 8 + len(head + properties)) + head + properties


def add_meter(meter: int, rate: int, burst: int, xid: int) -> bytes:
    """A meter of packets a second; one that exists is refused as METER_EXISTS."""
    band = struct.pack("!HHII4x", ofproto.OFPMBT_DROP, 16, rate, burst)
    body = struct.pack("!HHI", ofproto.OFPMC_ADD, _METER_FLAGS, meter) + band
    return wire.message(ofproto.OFPT_METER_MOD, xid, body)


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
    return PacketIn(
        int.from_bytes(found.get(_TABLE, b"")[:1], "big"),
        int.from_bytes(found.get(_COOKIE, b"")[-8:], "big"),
        found.get(_PACKET, b""),
        _registers(found.get(_METADATA, b"")),
    )


def _properties(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = _VENDOR.size
    while at + _PROPERTY.size <= len(body):
        kind, size = _PROPERTY.unpack_from(body, at)
        if not _PROPERTY.size <= size <= len(body) - at:
            raise wire.WireError(f"a property of {size} bytes cannot be")
        yield kind, body[at + _PROPERTY.size : at + size]
        at += (size + 7) // 8 * 8


def _registers(metadata: bytes) -> dict[int, int]:
    """The registers among what is known of a packet; other fields, also those unknown here, are skipped."""
    found, at = {}, 0
    while at + 4 <= len(metadata):
        end = at + 4 + metadata[at + 3]
        try:
            for term in decode_match(metadata[at:end]):
                if term.field in m.REGISTERS:
                    found[m.REGISTERS.index(term.field)] = term.value
        except UnknownFieldError:
            pass
        at = end
    return found
