"""A flow monitor: the switch tells what others do to flows.  Bytes in, bytes out.

OpenFlow Switch Specification 1.4.0, section 7.3.5.17; Open vSwitch has it for this version from 3.0 on.  What the
connection itself does to flows is told in one word, at the very place between what others did before and after.
Flags and importance of a flow are not told (lib/ofp-monitor.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.flow import Flow

_MULTIPART = struct.Struct("!HH4x")
_REQUEST = struct.Struct("!IIIHBB")
_EVENT = struct.Struct("!HH")
_NO_MATCH = struct.pack("!HH4x", ofproto.OFPMT_OXM, 4)
_WHAT = ofproto.OFPFMF_ADD | ofproto.OFPFMF_REMOVED | ofproto.OFPFMF_MODIFY | ofproto.OFPFMF_INSTRUCTIONS
_SHORTEST, _WITH_FLOW = 8, 32
_NO_FLAGS_NOR_IMPORTANCE = b"\0\0\0\0"


class EventKind(Enum):
    """What has happened: a flow is there as told, or is gone; we did something ourselves; not all is told."""

    PRESENT = "present"
    ABSENT = "absent"
    OWN = "own"
    GAP = "gap"


class Event(NamedTuple):
    """One thing that has happened; `flow` is what it happened to, where it is PRESENT or ABSENT."""

    kind: EventKind
    flow: Flow | None = None


_OF_FLOW = {
    ofproto.OFPFME_ADDED: EventKind.PRESENT,
    ofproto.OFPFME_MODIFIED: EventKind.PRESENT,
    ofproto.OFPFME_REMOVED: EventKind.ABSENT,
}
_WITHOUT_FLOW = {
    ofproto.OFPFME_ABBREV: EventKind.OWN,
    ofproto.OFPFME_PAUSED: EventKind.GAP,
    ofproto.OFPFME_RESUMED: EventKind.GAP,
}


def monitor_request(tables: Iterable[int], xid: int) -> bytes:
    """Ask to be told from now on of every change in some tables."""
    body = _MULTIPART.pack(ofproto.OFPMP_FLOW_MONITOR, 0) + b"".join(
        _REQUEST.pack(table, ofproto.OFPP_ANY, ofproto.OFPG_ANY, _WHAT, table, ofproto.OFPFMC_ADD) + _NO_MATCH
        for table in tables
    )
    return wire.message(ofproto.OFPT_MULTIPART_REQUEST, xid, body)


def events(message: wire.Message) -> Iterator[Event]:
    """What an unasked message tells; nothing when it is of no kind that was asked for.  Raises WireError."""
    if message.type == ofproto.OFPT_MULTIPART_REPLY:
        kind, _ = _MULTIPART.unpack_from(message.body)
        if kind == ofproto.OFPMP_FLOW_MONITOR:
            yield from _updates(message.body)


def _updates(body: bytes) -> Iterator[Event]:
    at = _MULTIPART.size
    while at < len(body):
        size, what = _EVENT.unpack_from(body, at)
        if not _SHORTEST <= size <= len(body) - at:
            raise wire.WireError(f"a flow update of {size} bytes cannot be")
        if what in _OF_FLOW and size >= _WITH_FLOW:
            yield Event(_OF_FLOW[what], _flow(body, at, at + size))
        else:
            yield Event(_WITHOUT_FLOW.get(what, EventKind.GAP))
        at += size


def _flow(body: bytes, at: int, end: int) -> Flow:
    """Offsets in struct ofp_flow_update_full: table 4, timeouts 6, priority 10, cookie 16, match 24."""
    size = body[at + 26] << 8 | body[at + 27]
    return Flow(
        body[at + 4 : at + 5] + body[at + 10 : at + 12] + body[at + 28 : at + 24 + size],
        body[at + 16 : at + 24]
        + body[at + 6 : at + 10]
        + _NO_FLAGS_NOR_IMPORTANCE
        + body[at + 24 + (size + 7 & ~7) : end],
    )
