"""How ovs-ofctl writes the values of match fields, ports and bits of fields; written and read.

Sources: ovs-fields(7), ovs-ofctl(8), and Open vSwitch's lib/match.c and lib/nx-match.c for what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from ovsfw.openflow import match as m
from ovsfw.openflow.action import VLAN_TCI, Place
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.match import Field, Kind, Term

RESERVED_PORTS = {
    ofproto.OFPP_IN_PORT: "IN_PORT",
    ofproto.OFPP_TABLE: "TABLE",
    ofproto.OFPP_NORMAL: "NORMAL",
    ofproto.OFPP_FLOOD: "FLOOD",
    ofproto.OFPP_ALL: "ALL",
    ofproto.OFPP_CONTROLLER: "CONTROLLER",
    ofproto.OFPP_LOCAL: "LOCAL",
    ofproto.OFPP_ANY: "ANY",
}
_PORT_NUMBERS = {name: number for number, name in RESERVED_PORTS.items()}

_TCP_FLAGS = {name: 1 << bit for bit, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"))}
_FLAGS: Mapping[Field, Mapping[str, int]] = {m.CT_STATE: m.CT_STATE_BITS, m.TCP_FLAGS: _TCP_FLAGS}
_FRAGMENTS: Mapping[str, tuple[int, int | None]] = {
    "no": (0, None),
    "first": (1, None),
    "later": (3, None),
    "yes": (1, 1),
    "not_later": (0, 2),
}
_FRAGMENT_NAMES = {value: name for name, value in _FRAGMENTS.items()}

_OLD_NAMES = {
    m.IN_PORT: "NXM_OF_IN_PORT",
    m.ETH_SRC: "NXM_OF_ETH_SRC",
    m.ETH_DST: "NXM_OF_ETH_DST",
    m.ETH_TYPE: "NXM_OF_ETH_TYPE",
    VLAN_TCI: "NXM_OF_VLAN_TCI",
    m.VLAN_VID: "OXM_OF_VLAN_VID",
    m.IPV4_SRC: "NXM_OF_IP_SRC",
    m.IPV4_DST: "NXM_OF_IP_DST",
    m.IP_PROTO: "NXM_OF_IP_PROTO",
    m.TUN_ID: "NXM_NX_TUN_ID",
    m.PKT_MARK: "NXM_NX_PKT_MARK",
    m.CT_STATE: "NXM_NX_CT_STATE",
    m.CT_ZONE: "NXM_NX_CT_ZONE",
    m.CT_MARK: "NXM_NX_CT_MARK",
    m.CT_LABEL: "NXM_NX_CT_LABEL",
    m.METADATA: "OXM_OF_METADATA",
    m.IPV6_SRC: "NXM_NX_IPV6_SRC",
    m.IPV6_DST: "NXM_NX_IPV6_DST",
    m.IP_TTL: "NXM_NX_IP_TTL",
    m.TCP_SRC: "NXM_OF_TCP_SRC",
    m.TCP_DST: "NXM_OF_TCP_DST",
    m.UDP_SRC: "NXM_OF_UDP_SRC",
    m.UDP_DST: "NXM_OF_UDP_DST",
    m.ICMP_TYPE: "NXM_OF_ICMP_TYPE",
    m.ICMP_CODE: "NXM_OF_ICMP_CODE",
    m.ICMP6_TYPE: "NXM_NX_ICMPV6_TYPE",
    m.ICMP6_CODE: "NXM_NX_ICMPV6_CODE",
    m.ND_TARGET: "NXM_NX_ND_TARGET",
    m.ND_SLL: "NXM_NX_ND_SLL",
    m.ND_TLL: "NXM_NX_ND_TLL",
    m.ARP_OP: "NXM_OF_ARP_OP",
    m.ARP_SPA: "NXM_OF_ARP_SPA",
    m.ARP_TPA: "NXM_OF_ARP_TPA",
    m.ARP_SHA: "NXM_NX_ARP_SHA",
    m.ARP_THA: "NXM_NX_ARP_THA",
} | {register: f"NXM_NX_REG{number}" for number, register in enumerate(m.REGISTERS)}
_BY_ANY_NAME = {name: field for field, name in _OLD_NAMES.items()} | {field.name: field for field in m.FIELDS}
_PLACE = re.compile(r"(\w+)\[(?:(\d+)(?:\.\.(\d+))?)?\]")


def write_port(number: int) -> str:
    """An OpenFlow port, by name when it has one in the specification."""
    return RESERVED_PORTS.get(number) or str(number)


def read_port(text: str) -> int:
    """Inverse of `write_port`."""
    return _PORT_NUMBERS[text] if text in _PORT_NUMBERS else int(text, 0)


def _action_bits(field: Field) -> int:
    """How wide a field is to actions: of vlan_vid they see the VLAN alone, matches also whether there is a tag."""
    return 12 if field is m.VLAN_VID else field.bits


def write_place(place: Place) -> str:
    """`NXM_NX_REG0[0..15]`, `NXM_NX_REG0[3]`, or `NXM_NX_REG0[]` for all of it."""
    field, first, length = place
    name = _OLD_NAMES.get(field, field.name)
    if length == _action_bits(field):
        return f"{name}[]"
    return f"{name}[{first}]" if length == 1 else f"{name}[{first}..{first + length - 1}]"


def read_place(text: str) -> Place:
    """Inverse of `write_place`; takes the short names of fields too.  Raises ValueError."""
    found = _PLACE.fullmatch(text)
    if found is None or found[1] not in _BY_ANY_NAME:
        raise ValueError(f"no part of a field: {text}")
    field = _BY_ANY_NAME[found[1]]
    if found[2] is None:
        return Place(field, 0, _action_bits(field))
    first = int(found[2])
    return Place(field, first, int(found[3] or first) - first + 1)


def write_value(term: Term) -> str:
    """The right side of `field=value` or `field=value/mask`."""
    field, value, mask = term
    if field.kind is Kind.FRAGMENT and (value, mask) in _FRAGMENT_NAMES:
        return _FRAGMENT_NAMES[value, mask]
    if mask is None:
        return write_port(value) if field is m.IN_PORT else _write_number(field, value)
    return _write_masked(field, value, mask)


def _write_masked(field: Field, value: int, mask: int) -> str:
    if field in _FLAGS:
        return _write_flags(_FLAGS[field], value, mask)
    if field.kind in (Kind.IPV4, Kind.IPV6):
        length = _prefix_length(mask, field.bits)
        return f"{_write_number(field, value)}/{_write_number(field, mask) if length is None else length}"
    if field.kind is Kind.MAC:
        return f"{_write_number(field, value)}/{_write_number(field, mask)}"
    return f"{value:#x}/{mask:#x}"


def read_value(field: Field, text: str) -> Term:
    """Inverse of `write_value`, which also takes what ovs-ofctl prints for the same.  Raises ValueError."""
    if field is m.IN_PORT and "/" not in text:
        return field(read_port(text))
    if field.kind is Kind.FRAGMENT and text in _FRAGMENTS:
        return field(*_FRAGMENTS[text])
    if field in _FLAGS and not text[:1].isdigit():
        return _read_flags(field, text)
    value, slash, mask = text.partition("/")
    if not slash:
        return field(_read_number(field, value))
    if field.kind in (Kind.IPV4, Kind.IPV6) and mask.isdigit():
        everything = (1 << field.bits) - 1
        return field(_read_number(field, value), everything ^ everything >> int(mask))
    return field(_read_number(field, value), _read_number(field, mask))


def _write_number(field: Field, value: int) -> str:
    match field.kind:
        case Kind.DECIMAL:
            return str(value)
        case Kind.MAC:
            return value.to_bytes(6, "big").hex(":")
        case Kind.IPV4:
            return str(IPv4Address(value))
        case Kind.IPV6:
            return str(IPv6Address(value))
    return f"{value:#x}"


def _read_number(field: Field, text: str) -> int:
    match field.kind:
        case Kind.MAC:
            return int.from_bytes(bytes.fromhex(text.replace(":", "")), "big")
        case Kind.IPV4:
            return int(IPv4Address(text))
        case Kind.IPV6:
            return int(IPv6Address(text))
    return int(text, 0)


def _prefix_length(mask: int, bits: int) -> int | None:
    """The length of a prefix mask; None when ones and zeros alternate."""
    host = mask ^ ((1 << bits) - 1)
    return bits - host.bit_length() if host & (host + 1) == 0 else None


def _write_flags(names: Mapping[str, int], value: int, mask: int) -> str:
    """`+trk-new`; numbers when there are bits without name."""
    if mask & ~sum(names.values()):
        return f"{value:#x}/{mask:#x}"
    return "".join(("+" if value & bit else "-") + name for name, bit in names.items() if mask & bit)


def _read_flags(field: Field, text: str) -> Term:
    """`+trk-new`, or `trk|new` for exactly these."""
    names = _FLAGS[field]
    if text[0] not in "+-":
        return field(sum(names[name] for name in text.split("|")))
    value = mask = 0
    for sign, name in re.findall(r"([+-])(\w+)", text):
        mask |= names[name]
        value |= names[name] if sign == "+" else 0
    return field(value, mask)
