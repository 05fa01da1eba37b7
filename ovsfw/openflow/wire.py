"""OpenFlow messages as bytes: what is said to a switch, and what it answers.

Bytes in, bytes out.  Numbers and names come from the codec; flows, of which there may be a hundred thousand, are cut
and joined as bytes, because a codec that builds an object for each is some fifty times slower.  Sources: OpenFlow
Switch Specification 1.4.0, sections 7.3.4.2 (flow mods), 7.3.5 (multipart), 7.3.9 (bundles), 7.4.4 (errors), 7.5.1
(hello).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.flow import Entry, Flow

VERSION: int = ofproto.OFP_VERSION
MAX_XID = 0xFFFFFFFF

_HEADER = struct.Struct("!BBHI")
_PAIR = struct.Struct("!HH")
_MULTIPART = struct.Struct("!HH4x")
_BUNDLE = struct.Struct("!IHH")
_BUNDLE_FLAGS: int = ofproto.OFPBF_ATOMIC | ofproto.OFPBF_ORDERED


class WireError(ValueError):
    """Bytes that are not OpenFlow."""


class Message(NamedTuple):
    """One message: the header's fields, and the rest."""

    version: int
    type: int
    xid: int
    body: bytes


class Framer:
    """Cuts a stream of bytes into messages; its only state is the beginning of a message that is not complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.  Raises WireError when a length cannot be: there is no way on then."""
        data = self._rest + data if self._rest else data
        messages, at = [], 0
        while len(data) - at >= _HEADER.size:
            version, kind, size, xid = _HEADER.unpack_from(data, at)
            if size < _HEADER.size:
                raise WireError(f"a message of {size} bytes cannot be: {data[at : at + _HEADER.size].hex()}")
            if len(data) - at < size:
                break
            messages.append(Message(version, kind, xid, data[at + _HEADER.size : at + size]))
            at += size
        self._rest = data[at:]
        return messages


def message(kind: int, xid: int, body: bytes = b"", version: int = VERSION) -> bytes:
    """Put a header before a body."""
    return _HEADER.pack(version, kind, _HEADER.size + len(body), xid) + body


def hello(xid: int, version: int = VERSION) -> bytes:
    """Offer exactly one version.  Without the bitmap a switch would take it as "this or any older one"."""
    bitmap = _PAIR.pack(ofproto.OFPHET_VERSIONBITMAP, 8) + (1 << version).to_bytes(4, "big")
    return message(ofproto.OFPT_HELLO, xid, bitmap, version)


def offers(hello_message: Message, version: int) -> bool:
    """Whether the sender of a HELLO speaks a version."""
    body, at = hello_message.body, 0
    while at + _PAIR.size <= len(body):
        kind, size = _PAIR.unpack_from(body, at)
        if kind == ofproto.OFPHET_VERSIONBITMAP:
            # The first word has the lowest 32 versions.
            return bool(int.from_bytes(body[at + 4 : at + 8], "big") >> version & 1)
        at += max(8, (size + 7) // 8 * 8)
    return hello_message.version >= version


def echo_reply(request: Message) -> bytes:
    """The answer to an ECHO_REQUEST, in its version."""
    return message(ofproto.OFPT_ECHO_REPLY, request.xid, request.body, request.version)


def barrier(xid: int) -> bytes:
    """Answered when everything before it is done."""
    return message(ofproto.OFPT_BARRIER_REQUEST, xid)


_PACKET_OUT = struct.Struct("!IIH6x")


def packet_out(packet: bytes, instructions: bytes, xid: int) -> bytes:
    """Let a switch do something with a packet, as if it came from nowhere (OpenFlow 1.4 section 7.3.7).

    `instructions` are those of a flow: one apply-actions, whose actions are taken out of it.
    """
    actions = instructions[8:]
    head = _PACKET_OUT.pack(ofproto.OFP_NO_BUFFER, ofproto.OFPP_CONTROLLER, len(actions))
    return message(ofproto.OFPT_PACKET_OUT, xid, head + actions + packet)


# Of the switch's configuration flags (OpenFlow 1.4 section 7.3.2), how fragments are handled.  NX_MATCH is Open
# vSwitch's own (include/openflow/nicira-ext.h): the first fragment keeps its ports, which "normal" hides (ovs-ofctl(8),
# set-frags).
_FRAGMENTS, FRAGMENTS_NORMAL, FRAGMENTS_NX_MATCH = 3, 0, 3
_CONFIG = struct.Struct("!HH")


def config_request(xid: int) -> bytes:
    """Ask for the switch's configuration."""
    return message(ofproto.OFPT_GET_CONFIG_REQUEST, xid)


def fragment_handling(config_reply: Message) -> int:
    """How the switch handles fragments: one of FRAGMENTS_*, or 1 (drop) or 2 (reassemble).  Raises WireError."""
    if config_reply.type != ofproto.OFPT_GET_CONFIG_REPLY or len(config_reply.body) < _CONFIG.size:
        raise WireError("no configuration reply")
    return int(_CONFIG.unpack_from(config_reply.body)[0]) & _FRAGMENTS


def set_config(fragments: int, xid: int) -> bytes:
    """Set how the switch handles fragments; packets that match nothing are sent to nobody on this connection."""
    return message(ofproto.OFPT_SET_CONFIG, xid, _CONFIG.pack(fragments, 0))


def features_request(xid: int) -> bytes:
    """Ask for what `datapath_id` reads."""
    return message(ofproto.OFPT_FEATURES_REQUEST, xid)


def datapath_id(features_reply: Message) -> int:
    """The 64-bit number of the bridge."""
    return int.from_bytes(features_reply.body[:8], "big")


# The prefix under which the codec has the codes of each type of error.
_CODES = {
    ofproto.OFPET_HELLO_FAILED: "OFPHFC_",
    ofproto.OFPET_BAD_REQUEST: "OFPBRC_",
    ofproto.OFPET_BAD_ACTION: "OFPBAC_",
    ofproto.OFPET_BAD_INSTRUCTION: "OFPBIC_",
    ofproto.OFPET_BAD_MATCH: "OFPBMC_",
    ofproto.OFPET_FLOW_MOD_FAILED: "OFPFMFC_",
    ofproto.OFPET_PORT_MOD_FAILED: "OFPPMFC_",
    ofproto.OFPET_TABLE_MOD_FAILED: "OFPTMFC_",
    ofproto.OFPET_METER_MOD_FAILED: "OFPMMFC_",
    ofproto.OFPET_BUNDLE_FAILED: "OFPBFC_",
    ofproto.OFPET_FLOW_MONITOR_FAILED: "OFPMOFC_",
}
_ERROR_NAMES = {
    (kind, code): name
    for kind, prefix in _CODES.items()
    for name, code in vars(ofproto).items()
    if name.startswith(prefix) and isinstance(code, int)
}


class Refusal(NamedTuple):
    """An error message: its name, and the xid of the message that was refused."""

    xid: int
    type: int
    code: int
    name: str


def refusal(error: Message) -> Refusal:
    """Read an ERROR.  `type` and `code` are given as numbers where the codec has no name for them."""
    if len(error.body) < _PAIR.size:
        raise WireError(f"an error message of {len(error.body)} bytes")
    kind, code = _PAIR.unpack_from(error.body)
    return Refusal(error.xid, kind, code, _ERROR_NAMES.get((kind, code), f"error type {kind} code {code}"))


_NO_BUFFER_ANY_PORT_ANY_GROUP = b"\xff" * 12
# All bits of a cookie but the lowest, which does not say whose a flow is.  Where all are asked for, Open vSwitch looks
# at every flow with that cookie, one after the other (collect_rules_strict() in its ofproto/ofproto.c).
_COOKIE_BITS = b"\xff" * 7 + b"\xfe"
_NO_BIT = b"\0" * 8
_ADD = bytes((ofproto.OFPFC_ADD,))
_DELETE_STRICT = bytes((ofproto.OFPFC_DELETE_STRICT,))
# By the length of the fields: the header before them, and the padding behind.
_MATCH_SIZES = range(1024)
_MATCH_HEADERS = [_PAIR.pack(ofproto.OFPMT_OXM, 4 + size) for size in _MATCH_SIZES]
_MATCH_PADDING = [b"\0" * (-(4 + size) % 8) for size in _MATCH_SIZES]


def _add(flow: Flow) -> bytes:
    """Body of the flow mod that adds a flow, or replaces the one with its key."""
    key, value = flow
    fields = key[3:]
    size = len(fields)
    return b"".join((
        value[:8], _NO_BIT, key[:1], _ADD, value[8:12], key[1:3], _NO_BUFFER_ANY_PORT_ANY_GROUP, value[12:16],
        _MATCH_HEADERS[size], fields, _MATCH_PADDING[size], value[16:],
    ))  # fmt: skip


def _delete(flow: Flow) -> bytes:
    """Body of the flow mod that deletes this flow, but not one that somebody else has put in its place since."""
    key, value = flow
    fields = key[3:]
    size = len(fields)
    return b"".join((
        value[:8], _COOKIE_BITS, key[:1], _DELETE_STRICT, b"\0\0\0\0", key[1:3], _NO_BUFFER_ANY_PORT_ANY_GROUP,
        b"\0\0\0\0", _MATCH_HEADERS[size], fields, _MATCH_PADDING[size],
    ))  # fmt: skip


def add(flow: Flow, xid: int) -> bytes:
    """Add a flow; one with the same key is replaced."""
    return message(ofproto.OFPT_FLOW_MOD, xid, _add(flow))


def delete(flow: Flow, xid: int) -> bytes:
    """Delete a flow by key and cookie; not finding it is no error."""
    return message(ofproto.OFPT_FLOW_MOD, xid, _delete(flow))


class BundleStep(IntEnum):
    """What a BUNDLE_CONTROL asks for; the answer has the next number."""

    OPEN = ofproto.OFPBCT_OPEN_REQUEST
    COMMIT = ofproto.OFPBCT_COMMIT_REQUEST
    DISCARD = ofproto.OFPBCT_DISCARD_REQUEST


def bundle_control(bundle: int, step: BundleStep, xid: int) -> bytes:
    """Open, commit or discard a bundle that is atomic and ordered."""
    return message(ofproto.OFPT_BUNDLE_CONTROL, xid, _BUNDLE.pack(bundle, step, _BUNDLE_FLAGS))


def bundle_adds(bundle: int, deletes: Iterable[Flow], adds: Iterable[Flow], xid: int) -> Iterator[bytes]:
    """One BUNDLE_ADD per flow: all deletes, then all adds.  They are numbered upwards from `xid`."""
    head = _BUNDLE.pack(bundle, 0, _BUNDLE_FLAGS)
    outer, inner = ofproto.OFPT_BUNDLE_ADD_MESSAGE, ofproto.OFPT_FLOW_MOD
    pack = _HEADER.pack
    for encode, flows in ((_delete, deletes), (_add, adds)):
        for flow in flows:
            body = encode(flow)
            size = 8 + len(body)
            yield b"".join((pack(VERSION, outer, 16 + size, xid), head, pack(VERSION, inner, size, xid), body))
            xid += 1


_FLOW_REQUEST = struct.Struct("!B3xII4xQQ")
_SMALLEST_ENTRY = 56
_ALL_FLOWS = (
    _MULTIPART.pack(ofproto.OFPMP_FLOW, 0)
    + _FLOW_REQUEST.pack(ofproto.OFPTT_ALL, ofproto.OFPP_ANY, ofproto.OFPG_ANY, 0, 0)
    + _MATCH_HEADERS[0]
    + _MATCH_PADDING[0]
)


def flows_request(xid: int) -> bytes:
    """Ask for every flow of every table."""
    return message(ofproto.OFPT_MULTIPART_REQUEST, xid, _ALL_FLOWS)


def has_more(reply: Message) -> bool:
    """Whether another part of a multipart reply follows.  Raises WireError when it is none."""
    if len(reply.body) < _MULTIPART.size:
        raise WireError(f"a multipart reply of {len(reply.body)} bytes cannot be")
    return bool(_MULTIPART.unpack_from(reply.body)[1] & ofproto.OFPMPF_REPLY_MORE)


# Section 7.3.5.2's struct ofp_flow_stats up to the length of the match: size, table, priority, timeouts with flags and
# importance, cookie, and that length; and its counters.
_FLOW_STATS = struct.Struct("!Hcx8x2s8s2x8s16x2xH")
_COUNTERS = struct.Struct("!H30xQQ")
# Where the match begins, and its fields in that.
_MATCH_AT, _FIELDS_AT = 48, 4


def parse_flows(reply: Message) -> Iterator[Entry]:
    """The flows in one part of the answer to `flows_request`, as canonical as the switch keeps them.

    Raises WireError when an entry's length cannot be.
    """
    unpack = _FLOW_STATS.unpack_from
    body, at = reply.body, _MULTIPART.size
    end = len(body)
    while at < end:
        if end - at < _SMALLEST_ENTRY:
            raise WireError(f"a flow of {int.from_bytes(body[at : at + 2], 'big')} bytes cannot be")
        size, table, priority, limits, cookie, length = unpack(body, at)
        if not _SMALLEST_ENTRY <= size <= end - at:
            raise WireError(f"a flow of {size} bytes cannot be")
        match, at = at + _MATCH_AT, at + size
        fields, instructions = match + _FIELDS_AT, match + (length + 7 & ~7)
        yield table + priority + body[fields : match + length], cookie + limits + body[instructions:at]


class Counted(NamedTuple):
    """A flow and what went through it."""

    flow: Flow
    packets: int
    bytes: int


def parse_counters(reply: Message) -> Iterator[Counted]:
    """As `parse_flows`, with the counters."""
    at = _MULTIPART.size
    for key, value in parse_flows(reply):
        size, packets, octets = _COUNTERS.unpack_from(reply.body, at)
        yield Counted(Flow(key, value), packets, octets)
        at += size
