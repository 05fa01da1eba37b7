"""Match fields and their canonical bytes.

A match is a tuple of terms in the order in which Open vSwitch writes them back in OpenFlow 1.4, so that what a switch
dumps can be compared with what was sent byte for byte.  The order is that of `nx_put_raw()` in Open vSwitch's
lib/nx-match.c; the same in every release from 2.13 on for the fields used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from ovsfw.openflow.codec import ofproto


class Kind(Enum):
    """How people write a field's value."""

    DECIMAL = "decimal"
    HEX = "hex"
    MAC = "mac"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    CT_STATE = "ct_state"
    FRAGMENT = "fragment"


@dataclass(frozen=True, eq=False, slots=True)
class Field:
    """One match field.

    `name` is ovs-fields(7)'s short name, `codec_name` the codec's; `order` is the place in the canonical form.
    """

    name: str
    codec_name: str
    bits: int
    kind: Kind
    order: int

    def __call__(self, value: int, mask: int | None = None) -> Term:
        """`field == value`, or `field & mask == value`."""
        return Term(self, value, mask)

    def __repr__(self) -> str:
        """The field's name."""
        return self.name

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return (self.bits + 7) // 8


class Term(NamedTuple):
    """A field and the value it must have; `mask` None means all bits."""

    field: Field
    value: int
    mask: int | None = None


Match = tuple[Term, ...]

_FIELDS: list[Field] = []


def _field(name: str, bits: int, kind: Kind, codec_name: str | None = None) -> Field:
    """Declare the next field in canonical order."""
    field = Field(name, codec_name or name, bits, kind, len(_FIELDS))
    _FIELDS.append(field)
    return field


D, H = Kind.DECIMAL, Kind.HEX
CONJ_ID = _field("conj_id", 32, D)
IN_PORT = _field("in_port", 32, D)
ETH_SRC = _field("dl_src", 48, Kind.MAC, "eth_src")
ETH_DST = _field("dl_dst", 48, Kind.MAC, "eth_dst")
ETH_TYPE = _field("dl_type", 16, H, "eth_type")
VLAN_VID = _field("vlan_vid", 13, H)
IPV4_SRC = _field("nw_src", 32, Kind.IPV4, "ipv4_src")
IPV4_DST = _field("nw_dst", 32, Kind.IPV4, "ipv4_dst")
IPV6_SRC = _field("ipv6_src", 128, Kind.IPV6)
IPV6_DST = _field("ipv6_dst", 128, Kind.IPV6)
IP_FRAG = _field("nw_frag", 8, Kind.FRAGMENT, "ip_frag")
IP_TTL = _field("nw_ttl", 8, D, "nw_ttl")
IP_PROTO = _field("nw_proto", 8, D, "ip_proto")
TCP_SRC = _field("tcp_src", 16, D)
TCP_DST = _field("tcp_dst", 16, D)
UDP_SRC = _field("udp_src", 16, D)
UDP_DST = _field("udp_dst", 16, D)
SCTP_SRC = _field("sctp_src", 16, D)
SCTP_DST = _field("sctp_dst", 16, D)
TCP_FLAGS = _field("tcp_flags", 16, H)
ICMP_TYPE = _field("icmp_type", 8, D, "icmpv4_type")
ICMP_CODE = _field("icmp_code", 8, D, "icmpv4_code")
ICMP6_TYPE = _field("icmpv6_type", 8, D)
ICMP6_CODE = _field("icmpv6_code", 8, D)
ND_TARGET = _field("nd_target", 128, Kind.IPV6, "ipv6_nd_target")
ND_SLL = _field("nd_sll", 48, Kind.MAC, "ipv6_nd_sll")
ND_TLL = _field("nd_tll", 48, Kind.MAC, "ipv6_nd_tll")
ARP_OP = _field("arp_op", 16, D)
ARP_SPA = _field("arp_spa", 32, Kind.IPV4)
ARP_TPA = _field("arp_tpa", 32, Kind.IPV4)
ARP_SHA = _field("arp_sha", 48, Kind.MAC)
ARP_THA = _field("arp_tha", 48, Kind.MAC)
TUN_ID = _field("tun_id", 64, H, "tunnel_id")
REGISTERS = tuple(_field(f"reg{number}", 32, H) for number in range(16))
PKT_MARK = _field("pkt_mark", 32, H)
CT_STATE = _field("ct_state", 32, Kind.CT_STATE)
CT_ZONE = _field("ct_zone", 16, D)
CT_MARK = _field("ct_mark", 32, H)
CT_LABEL = _field("ct_label", 128, H)
METADATA = _field("metadata", 64, H)
del D, H

FIELDS = tuple(_FIELDS)

# Bits of CT_STATE, from ovs-fields(7).
CT_STATE_BITS = {
    "new": 0x01,
    "est": 0x02,
    "rel": 0x04,
    "rpl": 0x08,
    "inv": 0x10,
    "trk": 0x20,
    "snat": 0x40,
    "dnat": 0x80,
}

# VLAN_VID: this bit is set on every tagged packet (OpenFlow 1.4 section 7.2.3.7).
VLAN_PRESENT = 0x1000


@lru_cache(maxsize=1024)
def ct_state(flags: str) -> Term:
    """Write conntrack states as ovs-ofctl does.

    >>> ct_state("+trk-new")
    Term(field=ct_state, value=32, mask=33)
    """
    value = mask = 0
    for sign, name in zip(flags[0::4], (flags[i + 1 : i + 4] for i in range(0, len(flags), 4)), strict=True):
        mask |= CT_STATE_BITS[name]
        value |= CT_STATE_BITS[name] if sign == "+" else 0
    return CT_STATE(value, mask)


def _header(field: Field, *, masked: bool) -> bytes:
    """The OXM header the codec writes for a field."""
    number, value, _ = ofproto.oxm_from_user(field.codec_name, _SAMPLES.get(field.kind, 0))
    buffer = bytearray()
    ofproto.oxm_serialize(number, value, value if masked else None, buffer, 0)
    size = len(value) * (2 if masked else 1)
    return bytes(buffer[: len(buffer) - size])


_SAMPLES: dict[Kind, object] = {Kind.MAC: "00:00:00:00:00:00", Kind.IPV4: "0.0.0.0", Kind.IPV6: "::"}  # noqa: S104
_EXACT = {field: _header(field, masked=False) for field in FIELDS}
_MASKED = {field: _header(field, masked=True) for field in FIELDS}
# Longest header first: an experimenter header begins like a short one.
_BY_HEADER = {header: (field, False) for field, header in _EXACT.items()} | {
    header: (field, True) for field, header in _MASKED.items()
}


def encode_term(term: Term) -> bytes:
    """One OXM TLV."""
    field, value, mask = term
    size = field.size
    if mask is None:
        return _EXACT[field] + value.to_bytes(size, "big")
    return _MASKED[field] + value.to_bytes(size, "big") + mask.to_bytes(size, "big")


@lru_cache(maxsize=1 << 17)
def _placed(term: Term) -> tuple[int, bytes]:
    """Its place in the canonical order, and its bytes."""
    return term.field.order, encode_term(term)


def encode_match(terms: Match) -> bytes:
    """The OXM TLVs of a match in canonical order, without header and padding.  Terms may come in any order."""
    return b"".join([data for _, data in sorted(map(_placed, terms))])


class UnknownFieldError(ValueError):
    """A switch sent a match field that this program does not know."""


def decode_match(data: bytes) -> Match:
    """Inverse of `encode_match`.  Raises UnknownFieldError with the bytes of what it cannot read."""
    terms, at = [], 0
    while at < len(data):
        end = at + 4 + data[at + 3]
        size = 8 if data[at : at + 2] == b"\xff\xff" else 4
        known = _BY_HEADER.get(data[at : at + size])
        if known is None:
            raise UnknownFieldError(data[at:end].hex())
        field, masked = known
        middle = at + size + field.size
        mask = int.from_bytes(data[middle:end], "big") if masked else None
        terms.append(Term(field, int.from_bytes(data[at + size : middle], "big"), mask))
        at = end
    return tuple(terms)
