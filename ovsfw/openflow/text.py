"""Flows in the syntax of ovs-ofctl(8): what people read, what golden files hold, what `ovs-ofctl add-flows` loads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import singledispatch

from ovsfw.openflow import action as a
from ovsfw.openflow import match as m
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.flow import Flow, flow
from ovsfw.openflow.match import Field, Match, Term, UnknownFieldError, decode_match, encode_match
from ovsfw.openflow.notation import read_place, read_port, read_value, write_place, write_port, write_value

Tables = Mapping[int, str]

# ovs-fields(7): words that stand for an Ethernet type and an IP protocol.
_SHORTHANDS: Mapping[str, tuple[int, int | None]] = {
    "ip": (0x0800, None),
    "icmp": (0x0800, 1),
    "tcp": (0x0800, 6),
    "udp": (0x0800, 17),
    "sctp": (0x0800, 132),
    "arp": (0x0806, None),
    "rarp": (0x8035, None),
    "ipv6": (0x86DD, None),
    "icmp6": (0x86DD, 58),
    "tcp6": (0x86DD, 6),
    "udp6": (0x86DD, 17),
    "sctp6": (0x86DD, 132),
}
_SHORTHAND_OF = {pair: word for word, pair in _SHORTHANDS.items()}
# Fields that ovs-ofctl prints under one name for several protocols, with the field by protocol.
_SHARED: Mapping[str, Mapping[int, Field]] = {
    "tp_src": {6: m.TCP_SRC, 17: m.UDP_SRC, 132: m.SCTP_SRC},
    "tp_dst": {6: m.TCP_DST, 17: m.UDP_DST, 132: m.SCTP_DST},
    "icmp_type": {1: m.ICMP_TYPE, 58: m.ICMP6_TYPE},
    "icmp_code": {1: m.ICMP_CODE, 58: m.ICMP6_CODE},
}
_SHARED_NAMES = {field: name for name, fields in _SHARED.items() for field in fields.values()}
_FIELDS = {field.name: field for field in m.FIELDS}
_VLAN_BITS = 0x1FFF

_FLAG_NAMES = {
    ofproto.OFPFF_SEND_FLOW_REM: "send_flow_rem",
    ofproto.OFPFF_CHECK_OVERLAP: "check_overlap",
    ofproto.OFPFF_RESET_COUNTS: "reset_counts",
    ofproto.OFPFF_NO_PKT_COUNTS: "no_packet_counts",
    ofproto.OFPFF_NO_BYT_COUNTS: "no_byte_counts",
}
_FLAG_BITS = {name: bit for bit, name in _FLAG_NAMES.items()}
_ALGS = {21: "ftp", 69: "tftp"}
_ALG_PORTS = {name: number for number, name in _ALGS.items()}
_DEFAULT_PRIORITY: int = ofproto.OFP_DEFAULT_PRIORITY


def format_flow(flow: Flow, tables: Tables | None = None) -> str:
    """One line that ovs-ofctl loads.  What is not known here, in somebody else's flow, is shown as hex.

    With `tables` (number to name) tables are shown by name.
    """
    tables = tables or {}
    parts = [f"cookie={flow.cookie:#x}", f"table={_table(flow.table, tables)}", f"priority={flow.priority}"]
    numbers = zip(("idle_timeout", "hard_timeout", "importance"), (*flow.timeouts, flow.importance), strict=True)
    parts += [f"{name}={value}" for name, value in numbers if value]
    parts += [name for bit, name in _FLAG_NAMES.items() if flow.flags & bit]
    parts += _match_parts(flow.key[3:])
    return f"{','.join(parts)} actions={format_actions(flow.actions, tables)}"


def format_packet(fields: Match) -> str:
    """The fields of a packet for ofproto/trace, which understands every field's own name only.

    >>> format_packet((m.IP_PROTO(17), m.ETH_TYPE(0x0800), m.UDP_DST(53), m.VLAN_VID(0x1007)))
    'dl_type=0x800,dl_vlan=7,nw_proto=17,udp_dst=53'
    """
    ordered = decode_match(encode_match(fields))
    return ",".join(
        _term(term) if term.field is m.VLAN_VID else f"{term.field.name}={write_value(term)}" for term in ordered
    )


def format_actions(actions: tuple[a.Action, ...], tables: Tables | None = None) -> str:
    """What follows `actions=`."""
    return ",".join(_format(action, tables or {}) for action in actions) or "drop"


def _table(number: int, tables: Tables) -> str:
    return tables.get(number) or str(number)


def _match_parts(data: bytes) -> Iterator[str]:
    """The terms of a match, the words for protocols first."""
    terms: list[Term] = []
    unknown: list[str] = []
    for piece in _split(data):
        known = _decode(piece)
        terms += known
        unknown += [] if known else [f"unknown_field(0x{piece.hex()})"]
    exact = {term.field: term.value for term in terms if term.mask is None}
    pair = (exact.get(m.ETH_TYPE, -1), exact.get(m.IP_PROTO))
    said = {m.ETH_TYPE, m.IP_PROTO}
    if pair not in _SHORTHAND_OF:
        pair, said = (pair[0], None), {m.ETH_TYPE}
    if pair in _SHORTHAND_OF:
        yield _SHORTHAND_OF[pair]
        terms = [term for term in terms if term.field not in said]
    yield from map(_term, terms)
    yield from unknown


def _split(data: bytes) -> Iterator[bytes]:
    """The OXM TLVs of a match."""
    at = 0
    while at < len(data):
        end = at + 4 + data[at + 3]
        yield data[at:end]
        at = end


def _decode(piece: bytes) -> Match:
    """The term of one TLV, nothing when the field is not known."""
    try:
        return decode_match(piece)
    except UnknownFieldError:
        return ()


def _term(term: Term) -> str:
    field, value, mask = term
    if field is m.VLAN_VID and mask is None and value & m.VLAN_PRESENT:
        return f"dl_vlan={value ^ m.VLAN_PRESENT}"
    return f"{_SHARED_NAMES.get(field, field.name)}={write_value(term)}"


@singledispatch
def _format(action: a.Action, _tables: Tables) -> str:
    raise TypeError(action)


@_format.register
def _(action: a.Output, _tables: Tables) -> str:
    if action in (a.NORMAL, a.IN_PORT):
        return write_port(action.port)
    return f"output:{write_port(action.port)}"


@_format.register
def _(action: a.Resubmit, tables: Tables) -> str:
    return f"resubmit(,{_table(action.table, tables)})"


@_format.register
def _(action: a.Load, _tables: Tables) -> str:
    return f"load:{action.value:#x}->{write_place(action.place)}"


@_format.register
def _(action: a.Move, _tables: Tables) -> str:
    return f"move:{write_place(action.source)}->{write_place(action.target)}"


@_format.register
def _(action: a.Conjunction, _tables: Tables) -> str:
    return f"conjunction({action.id},{action.clause}/{action.clauses})"


@_format.register
def _(action: a.Ct, tables: Tables) -> str:
    parts = [word for word in ("commit", "force") if getattr(action, word)]
    if action.table is not None:
        parts.append(f"table={_table(action.table, tables)}")
    if action.zone:
        parts.append(f"zone={write_place(action.zone) if isinstance(action.zone, a.Place) else action.zone}")
    if action.exec:
        parts.append(f"exec({format_actions(action.exec, tables)})")
    if action.alg:
        parts.append(f"alg={_ALGS.get(action.alg, action.alg)}")
    return f"ct({','.join(parts)})"


@_format.register
def _(_action: a.CtClear, _tables: Tables) -> str:
    return "ct_clear"


@_format.register
def _(_action: a.PopVlan, _tables: Tables) -> str:
    return "pop_vlan"


@_format.register
def _(action: a.Copy, _tables: Tables) -> str:
    return f"controller(max_len={action.length},id={action.controller},meter_id={action.meter})"


@_format.register
def _(action: a.Unknown, _tables: Tables) -> str:
    return f"unknown(0x{action.data.hex()})"


class FlowTextError(ValueError):
    """A text that is no flow, or one that this program would not send."""


# Commas inside brackets do not separate; brackets go two deep: ct(exec(load(...))).
_WORD = re.compile(r"(?:[^,\s()]|\((?:[^()]|\([^()]*\))*\))+")
_CALL = re.compile(r"(\w+)(?:\((.*)\)|:(.*))?")
_STATISTICS = frozenset({"duration", "n_packets", "n_bytes", "idle_age", "hard_age"})


def parse_flow(text: str, tables: Tables | None = None) -> Flow:
    """Read what `format_flow` or `ovs-ofctl dump-flows` prints for a flow that this program can send.

    `tables` must be as for `format_flow`.  Raises FlowTextError.
    """
    head, actions_follow, tail = text.partition("actions=")
    if not actions_follow:
        raise FlowTextError(f"no actions: {text}")
    numbers = {name: number for number, name in (tables or {}).items()}
    try:
        return _parse(_WORD.findall(head), _actions(tail, numbers), numbers)
    except (ValueError, KeyError, TypeError) as error:
        raise FlowTextError(f"{error}: {text}") from None


def _parse(words: list[str], actions: tuple[a.Action, ...], tables: Mapping[str, int]) -> Flow:
    given = {"cookie": "0", "table": "0", "priority": str(_DEFAULT_PRIORITY)}
    given |= dict.fromkeys(("idle_timeout", "hard_timeout", "importance"), "0")
    flags, fields = 0, []
    for word in words:
        name, has_value, value = word.partition("=")
        if name in given:
            given[name] = value
        elif name in _FLAG_BITS:
            flags |= _FLAG_BITS[name]
        elif has_value or name in _SHORTHANDS:
            fields += [] if name in _STATISTICS else [(name, value)]
        else:
            raise ValueError(f"unknown word {name!r}")
    made = flow(
        _table_number(given["table"], tables), int(given["priority"]), _match(fields), actions, int(given["cookie"], 0)
    )
    rest = (int(given["idle_timeout"]), int(given["hard_timeout"]), flags, int(given["importance"]))
    return Flow(made.key, made.value[:8] + b"".join(number.to_bytes(2, "big") for number in rest) + made.value[16:])


def _match(words: list[tuple[str, str]]) -> Match:
    terms: list[Term] = []
    for name, _ in words:
        if name in _SHORTHANDS:
            ether, proto = _SHORTHANDS[name]
            terms.append(m.ETH_TYPE(ether))
            terms += [] if proto is None else [m.IP_PROTO(proto)]
    protocol = next((int(value) for name, value in words if name == "nw_proto"), 0)
    protocol = next((term.value for term in terms if term.field is m.IP_PROTO), protocol)
    return (*terms, *(_read_term(name, value, protocol) for name, value in words if name not in _SHORTHANDS))


def _read_term(name: str, value: str, protocol: int) -> Term:
    if name == "dl_vlan":
        return m.VLAN_VID(int(value, 0) | m.VLAN_PRESENT)
    if name == "vlan_tci":
        bits, mask = (int(number, 0) for number in value.split("/"))
        if mask & ~_VLAN_BITS:
            raise ValueError("a match on VLAN priority")
        return m.VLAN_VID(bits, None if mask == _VLAN_BITS else mask)
    if name in _SHARED:
        return read_value(_SHARED[name][protocol], value)
    if name not in _FIELDS:
        raise ValueError(f"unknown field {name!r}")
    return read_value(_FIELDS[name], value)


def _table_number(text: str, tables: Mapping[str, int]) -> int:
    return tables[text] if text in tables else int(text)


def _actions(text: str, tables: Mapping[str, int]) -> tuple[a.Action, ...]:
    words = _WORD.findall(text)
    return () if words == ["drop"] else tuple(_action(word, tables) for word in words)


@_format.register
def _(action: a.OutputTo, _tables: Tables) -> str:
    return f"output:{write_place(action.place)}"


def _output(inside: str, _tables: Mapping[str, int]) -> a.Action:
    return a.OutputTo(read_place(inside)) if "[" in inside else a.Output(read_port(inside))


def _action(word: str, tables: Mapping[str, int]) -> a.Action:
    found = _CALL.fullmatch(word)
    if found is None:
        raise ValueError(f"unknown action {word!r}")
    name, inside = found[1], found[2] or found[3] or ""
    if name in _READERS:
        return _READERS[name](inside, tables)
    return a.Output(read_port(name))


def _load(inside: str, _tables: Mapping[str, int]) -> a.Load:
    value, _, place = inside.partition("->")
    return a.Load(read_place(place), int(value, 0))


def _move(inside: str, _tables: Mapping[str, int]) -> a.Move:
    source, _, target = inside.partition("->")
    return a.Move(read_place(source), read_place(target))


def _conjunction(inside: str, _tables: Mapping[str, int]) -> a.Conjunction:
    number, clause, clauses = re.split("[,/]", inside)
    return a.Conjunction(int(number), int(clause), int(clauses))


def _ct(inside: str, tables: Mapping[str, int]) -> a.Ct:
    words = _WORD.findall(inside)
    given = dict(word.split("=", 1) for word in words if "=" in word)
    zone = given.get("zone", "0")
    nested = next((word[len("exec(") : -1] for word in words if word.startswith("exec(")), "drop")
    alg = given.get("alg", "0")
    return a.Ct(
        read_place(zone) if "[" in zone else int(zone),
        commit="commit" in words,
        force="force" in words,
        table=_table_number(given["table"], tables) if "table" in given else None,
        exec=tuple(each for each in _actions(nested, tables) if isinstance(each, a.Load | a.Move)),
        alg=_ALG_PORTS[alg] if alg in _ALG_PORTS else int(alg),
    )


def _copy(inside: str, _tables: Mapping[str, int]) -> a.Copy:
    given = dict(word.split("=", 1) for word in inside.split(","))
    if given.keys() != {"max_len", "id", "meter_id"}:
        raise ValueError(f"controller({inside}): max_len, id and meter_id are needed")
    return a.Copy(controller=int(given["id"]), meter=int(given["meter_id"]), length=int(given["max_len"]))


_READERS: Mapping[str, Callable[[str, Mapping[str, int]], a.Action]] = {
    "output": _output,
    "resubmit": lambda inside, tables: a.Resubmit(_table_number(inside.removeprefix(","), tables)),
    "load": _load,
    "move": _move,
    "conjunction": _conjunction,
    "ct": _ct,
    "controller": _copy,
    "ct_clear": lambda *_: a.CtClear(),
    "pop_vlan": lambda *_: a.PopVlan(),
}
