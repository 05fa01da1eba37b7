"""Flows of every kind that ovsfw can express, for tests: hypothesis strategies, all of them valid to a switch."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ovsfw.openflow import action as a
from ovsfw.openflow import match as m
from ovsfw.openflow.flow import Flow, flow
from ovsfw.openflow.match import Field, Match, Term

# A machine that stalls for a moment is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
OFPP_FLOOD, OFPP_LOCAL = 0xFFFFFFFB, 0xFFFFFFFE


def _exact(field: Field, low: int = 0, high: int | None = None) -> st.SearchStrategy[Term]:
    return st.integers(low, (1 << field.bits) - 1 if high is None else high).map(field)


@st.composite
def masked(draw: st.DrawFn, field: Field, *, bits: int = 0) -> Term:
    """A term with a mask that is neither empty nor full, and no value bit outside it."""
    everything = (1 << (bits or field.bits)) - 1
    mask = draw(st.integers(1, everything - 1))
    if field.kind is m.Kind.IPV6:
        # ovs-ofctl takes an IPv6 mask that begins with a decimal digit for a prefix length.
        mask = (mask | 0xF << 124) & ~1
    return Term(field, draw(st.integers(0, everything)) & mask, mask)


def prefixed(field: Field) -> st.SearchStrategy[Term]:
    """An address prefix of any length from 1, with all bits written as no mask."""
    everything = (1 << field.bits) - 1

    def term(value: int, length: int) -> Term:
        mask = everything ^ everything >> length
        return Term(field, value & mask, None if mask == everything else mask)

    return st.builds(term, st.integers(0, everything), st.integers(1, field.bits))


def _both(field: Field) -> st.SearchStrategy[Term]:
    return _exact(field) | masked(field)


def _some(*terms: st.SearchStrategy[Term]) -> st.SearchStrategy[list[Term]]:
    """Any subset, one draw from each."""
    return st.tuples(*(st.none() | term for term in terms)).map(lambda drawn: [term for term in drawn if term])


# Conntrack states a switch takes: some known bits, and tracked, without which none of the others can be.  Not all known
# bits: ovs-ofctl turns a mask of these eight into a match on all 32.
ct_states = st.builds(
    lambda value, mask: m.CT_STATE(value & mask | 0x20, mask | 0x20), st.integers(0, 0xFF), st.integers(0, 0x5F)
)
_ANYWHERE = (
    st.integers(1, 0xFF00 - 1).map(m.IN_PORT) | st.just(m.IN_PORT(OFPP_LOCAL)),
    _both(m.ETH_SRC),
    _both(m.ETH_DST),
    st.integers(0x1000, 0x1FFF).map(m.VLAN_VID) | st.sampled_from([m.VLAN_VID(0), m.VLAN_VID(0x1000, 0x1000)]),
    _both(m.TUN_ID),
    _both(m.REGISTERS[0]),
    _both(m.REGISTERS[5]),
    _both(m.REGISTERS[15]),
    _both(m.PKT_MARK),
    ct_states,
    _exact(m.CT_ZONE),
    _both(m.CT_MARK),
    _both(m.CT_LABEL),
    _both(m.METADATA),
    _exact(m.CONJ_ID, low=1),
)
_FRAGMENTS = st.sampled_from([m.IP_FRAG(0), m.IP_FRAG(1), m.IP_FRAG(3), m.IP_FRAG(1, 1), m.IP_FRAG(0, 2)])
_TCP_FLAGS = masked(m.TCP_FLAGS, bits=9)


@st.composite
def _upper(draw: st.DrawFn, version: int) -> list[Term]:
    """An IP protocol, and what it has."""
    icmp = (1, m.ICMP_TYPE, m.ICMP_CODE) if version == IPV4 else (58, m.ICMP6_TYPE, m.ICMP6_CODE)
    fields = {
        6: (_both(m.TCP_SRC), _both(m.TCP_DST), _TCP_FLAGS),
        17: (_both(m.UDP_SRC), _both(m.UDP_DST)),
        132: (_both(m.SCTP_SRC), _both(m.SCTP_DST)),
        icmp[0]: (_exact(icmp[1]), _exact(icmp[2])),
        47: (),
    }
    protocol = draw(st.sampled_from(sorted(fields)))
    return [m.IP_PROTO(protocol), *draw(_some(*fields[protocol]))]


@st.composite
def _neighbour_discovery(draw: st.DrawFn) -> list[Term]:
    kind, link_layer = draw(st.sampled_from([(135, m.ND_SLL), (136, m.ND_TLL)]))
    head = [m.ETH_TYPE(IPV6), m.IP_PROTO(58), m.ICMP6_TYPE(kind), m.ICMP6_CODE(0)]
    return head + draw(_some(_both(m.ND_TARGET), _both(link_layer)))


@st.composite
def _ip(draw: st.DrawFn) -> list[Term]:
    version, source, target = draw(st.sampled_from([(IPV4, m.IPV4_SRC, m.IPV4_DST), (IPV6, m.IPV6_SRC, m.IPV6_DST)]))
    lower = draw(_some(prefixed(source) | masked(source), prefixed(target), _FRAGMENTS, _exact(m.IP_TTL)))
    upper = draw(st.just([]) | _upper(version))
    # Only the first fragment has what is above IP.
    return [m.ETH_TYPE(version), *lower, *(upper[:1] if m.IP_FRAG(3) in lower else upper)]


_ARP = _some(
    _exact(m.ARP_OP, 1, 255), prefixed(m.ARP_SPA), prefixed(m.ARP_TPA), _both(m.ARP_SHA), _both(m.ARP_THA)
).map(lambda terms: [m.ETH_TYPE(ARP), *terms])
_OTHER = st.integers(0x0900, 0x7FFF).map(lambda ether: [m.ETH_TYPE(ether)])


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """A match in canonical order."""
    terms = draw(_some(*_ANYWHERE)) + draw(st.just([]) | _ARP | _OTHER | _ip() | _neighbour_discovery())
    return tuple(sorted(terms, key=lambda term: term.field.order))


WRITABLE = (*m.REGISTERS, m.PKT_MARK, m.METADATA, m.TUN_ID, m.ETH_SRC, m.ETH_DST, a.VLAN_TCI)


@st.composite
def places(draw: st.DrawFn, fields: tuple[Field, ...] = WRITABLE, length: int = 0) -> a.Place:
    """Up to 64 bits of a field that can be written."""
    field = draw(st.sampled_from([field for field in fields if field.bits >= length]))
    size = length or draw(st.integers(1, min(64, field.bits)))
    return a.Place(field, draw(st.integers(0, field.bits - size)), size)


@st.composite
def loads(draw: st.DrawFn, fields: tuple[Field, ...] = WRITABLE) -> a.Load:
    place = draw(places(fields))
    return a.Load(place, draw(st.integers(0, (1 << place.length) - 1)))


@st.composite
def moves(draw: st.DrawFn, targets: tuple[Field, ...] = WRITABLE) -> a.Move:
    source = draw(places((*m.REGISTERS, m.METADATA, m.CT_MARK, m.CT_LABEL, m.ETH_SRC)))
    longest = max(field.bits for field in targets)
    source = source._replace(length=min(source.length, longest))
    return a.Move(source, draw(places(targets, source.length)))


@st.composite
def cts(draw: st.DrawFn) -> a.Ct:
    commit = draw(st.booleans())
    written = (m.CT_MARK, m.CT_LABEL)
    return a.Ct(
        draw(st.integers(0, 0xFFFF) | places(m.REGISTERS, 16)),
        commit=commit,
        force=commit and draw(st.booleans()),
        table=draw(st.none() | st.integers(0, 253)),
        exec=tuple(draw(st.lists(loads(written) | moves(written), max_size=3))) if commit else (),
    )


_ACTIONS = (
    st.integers(1, 0xFF00 - 1).map(a.Output)
    | st.sampled_from([a.NORMAL, a.IN_PORT, a.Output(OFPP_LOCAL), a.Output(OFPP_FLOOD)])
    | st.integers(0, 253).map(a.Resubmit)
    | loads()
    | moves()
    | cts()
    | st.just(a.CtClear())
    | st.just(a.PopVlan())
)


@st.composite
def conjunctions(draw: st.DrawFn) -> a.Conjunction:
    clauses = draw(st.integers(2, 64))
    return a.Conjunction(draw(st.integers(0, 0xFFFFFFFF)), draw(st.integers(1, clauses)), clauses)


# A switch takes conjunctions only by themselves.
action_lists = st.lists(_ACTIONS, max_size=6).map(tuple) | st.lists(conjunctions(), min_size=1, max_size=4).map(tuple)


def _fields(action: a.Load | a.Move) -> tuple[Field, ...]:
    """The field that an action writes, or reads and writes."""
    return (action.place.field,) if isinstance(action, a.Load) else (action.source.field, action.target.field)


def _consistent(match: Match, actions: tuple[a.Action, ...]) -> Iterator[a.Action]:
    """Leave out what a switch refuses beside a match.

    Conntrack needs IP and commits no invalid packet; a tag must be there to be taken off.
    """
    is_ip = m.ETH_TYPE(IPV4) in match or m.ETH_TYPE(IPV6) in match
    is_invalid = any(term.field is m.CT_STATE and term.value & m.CT_STATE_BITS["inv"] for term in match)
    tagged = any(term.field is m.VLAN_VID and term.value & m.VLAN_PRESENT for term in match)
    for action in actions:
        if isinstance(action, a.Load | a.Move):
            tagged = tagged and a.VLAN_TCI not in _fields(action)
        if isinstance(action, a.PopVlan):
            if tagged:
                yield action
            tagged = False
        elif not isinstance(action, a.Ct) or (is_ip and not (is_invalid and action.commit)):
            yield action


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """A flow with or without timeouts, flags and importance."""
    match, wanted = draw(matches()), draw(action_lists)
    if any(isinstance(action, a.Conjunction) for action in wanted):
        match = tuple(term for term in match if term.field is not m.CONJ_ID)
    actions = tuple(_consistent(match, wanted))
    bare = flow(draw(st.integers(0, 253)), draw(st.integers(0, 65535)), match, actions, draw(st.integers(0, 2**64 - 2)))
    small = st.integers(0, 65535)
    flags = draw(st.sampled_from([0, 0, 1, 8, 16, 25]))
    rest = (draw(small), draw(small), flags, draw(small)) if draw(st.booleans()) else (0, 0, 0, 0)
    return Flow(bare.key, bare.value[:8] + b"".join(number.to_bytes(2, "big") for number in rest) + bare.value[16:])
