"""Actions, and their bytes by the codec.

Each action is a small frozen value (a dataclass and not a tuple: `Output(3)` must not equal `Resubmit(3)`);
`encode_actions` gives the bytes of a whole list.  Sources: ovs-actions(7), and the
Nicira extension layouts in Open vSwitch's lib/ofp-actions.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from typing import Any, NamedTuple

from ovsfw.openflow import match as m
from ovsfw.openflow.codec import ofproto, parser


class Place(NamedTuple):
    """Some bits of a field: `length` bits from bit `first` up."""

    field: m.Field
    first: int
    length: int


# Fields that actions write but no flow of ours matches, under the names ovs-ofctl prints.
VLAN_TCI = m.Field("NXM_OF_VLAN_TCI", "vlan_tci", 16, m.Kind.HEX, -1)


# In actions Open vSwitch writes a field's Nicira header where it has one, in matches the standard one.
_NICIRA_NAMES = {f"{field.codec_name}_nxm": field for field in m.FIELDS if field is not m.IN_PORT}
_FIELDS = {field.codec_name: field for field in (*m.FIELDS, VLAN_TCI)} | {
    kind.name: _NICIRA_NAMES[kind.name] for kind in ofproto.oxm_types if kind.name in _NICIRA_NAMES
}
# The later entry, which is the Nicira one, wins.
_NAMES = {field: name for name, field in _FIELDS.items()}


def whole(field: m.Field) -> Place:
    """All bits of a field."""
    return Place(field, 0, field.bits)


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet out of a port; NORMAL is the switch's own forwarding."""

    port: int


NORMAL = Output(ofproto.OFPP_NORMAL)
IN_PORT = Output(ofproto.OFPP_IN_PORT)


@dataclass(frozen=True, slots=True)
class OutputTo:
    """Send the packet out of the port whose number some bits of a field hold."""

    place: Place


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look the packet up in another table, then come back for the next action."""

    table: int


@dataclass(frozen=True, slots=True)
class Load:
    """Write a constant into some bits of a field."""

    place: Place
    value: int


@dataclass(frozen=True, slots=True)
class Move:
    """Copy bits from one field to another of the same length."""

    source: Place
    target: Place


@dataclass(frozen=True, slots=True)
class Conjunction:
    """Makes the flow one value of dimension `clause` (from 1) of conjunction `id`."""

    id: int
    clause: int
    clauses: int


@dataclass(frozen=True, slots=True)
class Ct:
    """Send the packet to conntrack.

    `zone` is a number or the 16 bits that hold it; `table`, where the packet goes on with its ct_state, None to go on
    here untracked; `exec`, what is written into ct_mark and ct_label when the connection is committed.
    """

    zone: int | Place
    commit: bool = False
    force: bool = False
    table: int | None = None
    exec: tuple[Load | Move, ...] = ()
    alg: int = 0


@dataclass(frozen=True, slots=True)
class CtClear:
    """Forget the packet's conntrack state."""


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Take the outer VLAN tag off."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Send the first `length` bytes of the packet to one controller, as often as a meter lets it; then go on.

    The meter must exist.  It limits the copies, never the packets: Open vSwitch puts it into a sample of its own.
    """

    controller: int
    meter: int
    length: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """An action of somebody else's flow, as it was read: shown, never sent."""

    data: bytes


Action = Output | OutputTo | Resubmit | Load | Move | Conjunction | Ct | CtClear | PopVlan | Copy | Unknown


def _ofs_nbits(place: Place) -> int:
    return place.first << 6 | (place.length - 1)


# "Go on here": the number that stands for no table in a conntrack action.
_NO_TABLE = 0xFF


# The codec has no types, hence Any.
@singledispatch
def _to_codec(action: Action) -> Any:  # noqa: ANN401
    """The codec's object for an action."""
    raise ValueError(f"cannot send an unknown action: {action}")


@_to_codec.register
def _(action: Output) -> Any:  # noqa: ANN401
    return parser.OFPActionOutput(action.port, 0)


@_to_codec.register
def _(action: OutputTo) -> Any:  # noqa: ANN401
    return parser.NXActionOutputReg(ofs_nbits=_ofs_nbits(action.place), src=_NAMES[action.place.field], max_len=0)


@_to_codec.register
def _(action: Resubmit) -> Any:  # noqa: ANN401
    return parser.NXActionResubmitTable(in_port=ofproto.OFPP_IN_PORT & 0xFFFF, table_id=action.table)


@_to_codec.register
def _(action: Load) -> Any:  # noqa: ANN401
    return parser.NXActionRegLoad(_ofs_nbits(action.place), _NAMES[action.place.field], action.value)


@_to_codec.register
def _(action: Move) -> Any:  # noqa: ANN401
    source, target = action.source, action.target
    return parser.NXActionRegMove(_NAMES[source.field], _NAMES[target.field], source.length, source.first, target.first)


@_to_codec.register
def _(action: Conjunction) -> Any:  # noqa: ANN401
    return parser.NXActionConjunction(clause=action.clause - 1, n_clauses=action.clauses, id_=action.id)


@_to_codec.register
def _(action: Ct) -> Any:  # noqa: ANN401
    zone = action.zone
    return parser.NXActionCT(
        flags=action.commit | action.force << 1,
        zone_src=_NAMES[zone.field] if isinstance(zone, Place) else "",
        zone_ofs_nbits=_ofs_nbits(zone) if isinstance(zone, Place) else zone,
        recirc_table=_NO_TABLE if action.table is None else action.table,
        alg=action.alg,
        actions=[_to_codec(nested) for nested in action.exec],
    )


@_to_codec.register
def _(_action: CtClear) -> Any:  # noqa: ANN401
    return parser.NXActionCTClear()


@_to_codec.register
def _(_action: PopVlan) -> Any:  # noqa: ANN401
    return parser.OFPActionPopVlan()


# NXAST_CONTROLLER2 (lib/ofp-actions.c), whose meter the codec does not know: a length, a controller and a meter, in the
# order and with the padding in which Open vSwitch writes them back.
_COPY = struct.Struct("!HHIH6xHHHxxHHHxxHHI")
_NICIRA, _CONTROLLER2 = 0x2320, 37
_MAX_LEN, _CONTROLLER_ID, _METER_ID = (0, 8), (1, 8), (5, 8)


def _encode_copy(action: Copy) -> bytes:
    head = (ofproto.OFPAT_EXPERIMENTER, _COPY.size, _NICIRA, _CONTROLLER2)
    return _COPY.pack(*head, *_MAX_LEN, action.length, *_CONTROLLER_ID, action.controller, *_METER_ID, action.meter)


def _decode_copy(data: bytes) -> Copy | None:
    """None for anything else."""
    if len(data) != _COPY.size:
        return None
    words = _COPY.unpack(data)
    copy = Copy(length=words[6], controller=words[9], meter=words[12])
    return copy if _encode_copy(copy) == data else None


def encode_action(action: Action) -> bytes:
    """One action, padded to eight bytes.  Raises ValueError for Unknown.

    The numbers of the most frequent ones are written into what the codec has made of 0: it takes twenty times as long,
    and there are as many of them as there are rules.
    """
    if isinstance(action, Load):
        return _zero_load(action.place) + action.value.to_bytes(8, "big")
    if isinstance(action, Conjunction):
        return _zero_conjunction(action.clause, action.clauses) + action.id.to_bytes(4, "big")
    if isinstance(action, Output):
        return _OUTPUT[:4] + action.port.to_bytes(4, "big") + _OUTPUT[8:]
    return _encoded(action)


@lru_cache(maxsize=1 << 12)
def _encoded(action: Action) -> bytes:
    if isinstance(action, Copy):
        return _encode_copy(action)
    buffer = bytearray()
    _to_codec(action).serialize(buffer, 0)
    return bytes(buffer)


_OUTPUT = _encoded(Output(0))


@lru_cache
def _zero_load(place: Place) -> bytes:
    return _encoded(Load(place, 0))[:-8]


@lru_cache
def _zero_conjunction(clause: int, clauses: int) -> bytes:
    return _encoded(Conjunction(0, clause, clauses))[:-4]


def encode_actions(actions: Iterable[Action]) -> bytes:
    """The instructions of a flow: one apply-actions, or nothing when there is no action, as the switch writes it."""
    return apply_actions(b"".join(map(encode_action, actions)))


def apply_actions(data: bytes) -> bytes:
    """The same for actions that are bytes already."""
    if not data:
        return b""
    return _APPLY + (8 + len(data)).to_bytes(2, "big") + b"\0\0\0\0" + data


_APPLY = bytes((0, ofproto.OFPIT_APPLY_ACTIONS))


def _place(name: str, first: int, length: int) -> Place:
    return Place(_FIELDS[name], first, length)


def _place_of(name: str, ofs_nbits: int) -> Place:
    return _place(name, ofs_nbits >> 6, (ofs_nbits & 63) + 1)


def _move(parsed: Any) -> Move:  # noqa: ANN401
    return Move(
        _place(parsed.src_field, parsed.src_ofs, parsed.n_bits), _place(parsed.dst_field, parsed.dst_ofs, parsed.n_bits)
    )


def _ct(parsed: Any) -> Ct:  # noqa: ANN401
    nested = tuple(_from_codec(inner) for inner in parsed.actions)
    return Ct(
        _place_of(parsed.zone_src, parsed.zone_ofs_nbits) if parsed.zone_src else parsed.zone_ofs_nbits,
        commit=bool(parsed.flags & 1),
        force=bool(parsed.flags & 2),
        table=None if parsed.recirc_table == _NO_TABLE else parsed.recirc_table,
        exec=tuple(inner for inner in nested if isinstance(inner, Load | Move)),
        alg=parsed.alg,
    )


_BY_CODEC_CLASS: dict[type, Callable[[Any], Action]] = {
    parser.OFPActionOutput: lambda parsed: Output(parsed.port),
    parser.NXActionOutputReg: lambda parsed: OutputTo(_place_of(parsed.src, parsed.ofs_nbits)),
    parser.OFPActionPopVlan: lambda _: PopVlan(),
    parser.NXActionResubmitTable: lambda parsed: Resubmit(parsed.table_id),
    parser.NXActionRegLoad: lambda parsed: Load(_place_of(parsed.dst, parsed.ofs_nbits), parsed.value),
    parser.NXActionRegMove: _move,
    parser.NXActionConjunction: lambda parsed: Conjunction(parsed.id, parsed.clause + 1, parsed.n_clauses),
    parser.NXActionCT: _ct,
    parser.NXActionCTClear: lambda _: CtClear(),
}


def _from_codec(parsed: Any) -> Action | None:  # noqa: ANN401
    """Our action for the codec's object; None for a kind this program never sends."""
    build = _BY_CODEC_CLASS.get(type(parsed))
    return build(parsed) if build else None


def _decode_action(data: bytes) -> Action:
    """One action; what does not encode to the same bytes again is kept as Unknown rather than shown wrongly."""
    copy = _decode_copy(data)
    if copy is not None:
        return copy
    try:
        action = _from_codec(parser.OFPAction.parser(data, 0))
        if action is not None and encode_action(action) == data:
            return action
    except Exception:  # noqa: BLE001, S110 - the codec raises anything on bytes it does not know
        pass
    return Unknown(data)


@lru_cache(maxsize=1 << 15)
def decode_actions(instructions: bytes) -> tuple[Action, ...]:
    """Inverse of `encode_actions`.  Instructions other than apply-actions come back as one Unknown."""
    if not instructions:
        return ()
    if instructions[:2] != _APPLY or int.from_bytes(instructions[2:4], "big") != len(instructions):
        return (Unknown(instructions),)
    actions, at = [], 8
    while at < len(instructions):
        size = int.from_bytes(instructions[at + 2 : at + 4], "big")
        actions.append(_decode_action(instructions[at : at + size]))
        at += size
    return tuple(actions)


__all__ = [
    "IN_PORT",
    "NORMAL",
    "VLAN_TCI",
    "Action",
    "Conjunction",
    "Copy",
    "Ct",
    "CtClear",
    "Load",
    "Move",
    "Output",
    "OutputTo",
    "Place",
    "PopVlan",
    "Resubmit",
    "Unknown",
    "apply_actions",
    "decode_actions",
    "encode_action",
    "encode_actions",
    "whole",
]
