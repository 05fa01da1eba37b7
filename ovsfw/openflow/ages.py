"""How often and how lately flows were hit.

OpenFlow 1.4 does not say when a flow was hit last; Open vSwitch's own statistics do, in its extension of 1.0 (struct
nx_flow_stats in include/openflow/nicira-ext.h).  Bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto10
from ovsfw.openflow.port import VERSION

_VENDOR_STATS: int = ofproto10.OFPST_VENDOR
_NICIRA, _FLOWS = 0x2320, 0
_HEADER = struct.Struct("!HHII4x")
_REQUEST = struct.Struct("!HHB3x")
# length, table, duration in s, priority, idle age in s plus 1, cookie, packets, bytes
_ENTRY = struct.Struct("!HBxI4xH6xH2xQQQ")
_NO_PORT, _ALL_TABLES = 0xFFFF, 0xFF
# 16 bits hold no more: it was then, or any time before.
LONGEST_IDLE = 65534


class Age(NamedTuple):
    """A flow's counters: `since` is how long it has been there, `idle` how long ago it was hit last, in seconds.

    `idle` is None where it is not known; from LONGEST_IDLE on it may be any longer.
    """

    table: int
    cookie: int
    packets: int
    bytes: int
    since: int
    idle: int | None


def ages_request(xid: int) -> bytes:
    """Ask for every flow of every table."""
    body = _HEADER.pack(_VENDOR_STATS, 0, _NICIRA, _FLOWS) + _REQUEST.pack(_NO_PORT, 0, _ALL_TABLES)
    return wire.message(ofproto10.OFPT_STATS_REQUEST, xid, body, VERSION)


def parse_ages(reply: wire.Message) -> Iterator[Age]:
    """The flows in one part of the answer to `ages_request`.  Raises WireError when an entry's length cannot be."""
    body, at = reply.body, _HEADER.size
    while at < len(body):
        if len(body) - at < _ENTRY.size:
            raise wire.WireError(f"{len(body) - at} bytes are no flow")
        size, table, since, _, idle, cookie, packets, octets = _ENTRY.unpack_from(body, at)
        if not _ENTRY.size <= size <= len(body) - at:
            raise wire.WireError(f"a flow of {size} bytes cannot be")
        # A flow that was never hit has been idle since it was made.
        yield Age(table, cookie, packets, octets, since, idle - 1 if idle and packets else None)
        at += size
