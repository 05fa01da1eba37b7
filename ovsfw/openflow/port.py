"""The ports of a bridge and their NO_FLOOD flag, in OpenFlow 1.0.

OpenFlow 1.1 dropped the flag.  Open vSwitch kept it, but shows and sets it in 1.0 only: in 1.4 a PORT_MOD that asks for
it is accepted and does nothing (`OFPPC11_ALL` in its lib/ofp-port.c).  Bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ovsfw.openflow import wire
from ovsfw.openflow.codec import DATAPATH10, ofproto, ofproto10, parser10

VERSION: int = ofproto10.OFP_VERSION
NO_FLOOD: int = ofproto10.OFPPC_NO_FLOOD

# Nicira's extension to say which messages that nobody asks for a connection gets (include/openflow/nicira-ext.h, struct
# nx_async_config): packets, ports and flows, each for a master and for a slave.  On a connection to its management
# socket, the switch sends any of them only to who takes packets at all (`ofconn_receives_async_msg()`).
_SET_ASYNC = struct.Struct("!II6I")
_NICIRA, _SET_ASYNC_CONFIG = 0x2320, 19
_CONFIG = struct.Struct("!HH")
_EVERY_CHANGE, _MISS_SEND_LENGTH = 7, 128

# Open vSwitch answers a port description in 1.0 too, where it has no name in the specification.
_PORT_DESC = ofproto.OFPMP_PORT_DESC
_STATS = struct.Struct("!HH")
# The beginning of struct ofp_phy_port (OpenFlow 1.0, section 5.2.1); the codec is slow when there are hundreds.
_PHY_PORT = struct.Struct("!H6s16sI")
# Reserved numbers are the highest 256 of 16 bits in 1.0, and the highest 256 of 32 bits from 1.1 on.
_FIRST_RESERVED, _RESERVED_OFFSET = 0xFF00, 0xFFFF0000


class SwitchPort(NamedTuple):
    """An OpenFlow port: `ofport` as in OpenFlow 1.4, `config` as OFPPC_* bits of 1.0, `mac` as text."""

    ofport: int
    name: str
    mac: str
    config: int

    @property
    def no_flood(self) -> bool:
        """Whether NORMAL leaves it out when it floods."""
        return bool(self.config & NO_FLOOD)


def ports_request(xid: int) -> bytes:
    """Ask for every port of the bridge."""
    return wire.message(ofproto10.OFPT_STATS_REQUEST, xid, _STATS.pack(_PORT_DESC, 0), VERSION)


def only_news_of_ports(fragments: int, xid: int) -> list[bytes]:
    """Ask to be told whenever a port changes, and of nothing else; `fragments` is how these are handled now.

    In 1.4 a change of NO_FLOOD is not told.  Takes two transaction ids; is not answered.
    """
    wanted = _SET_ASYNC.pack(_NICIRA, _SET_ASYNC_CONFIG, 0, 0, _EVERY_CHANGE, 0, 0, 0)
    return [
        wire.message(ofproto10.OFPT_VENDOR, xid, wanted, VERSION),
        wire.message(ofproto10.OFPT_SET_CONFIG, xid + 1, _CONFIG.pack(fragments, _MISS_SEND_LENGTH), VERSION),
    ]


def config_request(xid: int) -> bytes:
    """Ask for the switch's configuration, in 1.0."""
    return wire.message(ofproto10.OFPT_GET_CONFIG_REQUEST, xid, b"", VERSION)


def is_news(message: wire.Message) -> bool:
    """Whether a message tells that a port has changed."""
    return bool(message.type == ofproto10.OFPT_PORT_STATUS)


def has_more(reply: wire.Message) -> bool:
    """Whether another part of the answer follows."""
    return bool(_STATS.unpack_from(reply.body)[1] & ofproto10.OFPSF_REPLY_MORE)


def parse_ports(reply: wire.Message) -> Iterator[SwitchPort]:
    """The ports in one part of the answer to `ports_request`."""
    size = ofproto10.OFP_PHY_PORT_SIZE
    for at in range(_STATS.size, len(reply.body), size):
        yield _port(reply.body[at : at + size])


@lru_cache(maxsize=1 << 12)
def _port(description: bytes) -> SwitchPort:
    """All ports are asked for several times when one is plugged, and hardly any is another one then."""
    number, mac, name, config = _PHY_PORT.unpack_from(description)
    number += _RESERVED_OFFSET if number >= _FIRST_RESERVED else 0
    return SwitchPort(number, name.rstrip(b"\0").decode(errors="replace"), mac.hex(":"), config)


def set_no_flood(port: SwitchPort, xid: int, *, on: bool) -> bytes:
    """Keep a port out of flooding, or let it in again.  The port's present MAC must be given, or it is refused."""
    mod = parser10.OFPPortMod(
        DATAPATH10, port.ofport & 0xFFFF, port.mac, config=NO_FLOOD if on else 0, mask=NO_FLOOD, advertise=0
    )
    mod.set_xid(xid)
    mod.serialize()
    return bytes(mod.buf)
