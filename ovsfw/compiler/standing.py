"""Flows that are the same for every policy: the frame into which endpoints, groups and networks are hung."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.hook import STANDALONE, Hook
from ovsfw.compiler.packets import (
    ARP,
    DHCP_REPLIES,
    DHCP_REQUESTS,
    FIRST_FRAGMENT,
    FRAGMENT,
    GROUP_ADDRESSED,
    IP,
    IPV6,
    LATER_FRAGMENT,
    NO_LINK_LAYER,
    PORT_FIELD,
    PRIORITY_TAGGED,
    ROUTER_ADVERTISEMENTS,
    TAGGED,
    TCP_ENDINGS,
    UNTAG,
    icmp,
    icmpv6,
    load,
    to,
)
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.compiler.remembering import ACCEPTED, commit_flows, leave_flows
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, CtClear, Load, Move, OutputTo, Place
from ovsfw.openflow.flow import Flow
from ovsfw.policy.verdict import (
    ICMP_ROUTER_ONLY,
    ICMPV6_FROM_ENDPOINT,
    ICMPV6_FROM_NOWHERE,
    ICMPV6_ROUTER_ONLY,
    ICMPV6_TO_ENDPOINT,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    TCP,
    UDP,
)

IS_STATELESS = p.ENDPOINT(p.STATELESS, p.STATELESS)
NEIGHBOUR_TYPES = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)


def standing_flows(hook: Hook = STANDALONE) -> Iterator[Flow]:
    """All of them."""
    yield from hook.flows()
    yield from _uplink()
    yield from _spoof_guard()
    yield from _egress()
    yield from _neighbour_discovery()
    yield from _state(EGRESS_SIDE)
    yield from _state(INGRESS_SIDE)
    yield from _data(EGRESS_SIDE)
    yield from _data(INGRESS_SIDE)
    yield from _verdict(EGRESS_SIDE)
    yield from _verdict(INGRESS_SIDE)
    yield from _gates()
    yield from _rules(p.EGRESS_RULE, p.EGRESS_TIERS, p.EGRESS_RULES, p.EGRESS_RULES_V4, p.EGRESS_RULES_V6)
    yield from _rules(p.INGRESS_RULE, p.INGRESS_TIERS, p.INGRESS_RULES, p.INGRESS_RULES_V4, p.INGRESS_RULES_V6)
    yield from _forward()
    yield from leave_flows(hook)
    yield from _fan_out()
    yield from _trusted()
    yield from _ingress()
    yield from commit_flows()
    yield from _deliver(hook)
    yield from _remark()
    yield from _misses()


def _flow(table: Table, priority: Priority, match: m.Match, actions: tuple[Action, ...], why: Reason) -> Flow:
    return table.flow(priority, match, actions, cookie(why))


def _uplink() -> Iterator[Flow]:
    """What comes in by a trunk port is in the network of its tag."""
    vlan = Move(Place(m.VLAN_VID, 0, 12), Place(p.NETWORK, 0, 12))
    untagged = (load(p.NETWORK, p.UNTAGGED), to(p.FORWARD))
    tagged = (load(p.NETWORK, 0), vlan, to(p.FORWARD))
    yield _flow(p.UPLINK, Priority.FIRST, (PRIORITY_TAGGED,), untagged, Reason.UPLINK)
    yield _flow(p.UPLINK, Priority.SECOND, (TAGGED,), tagged, Reason.UPLINK)
    yield _flow(p.UPLINK, Priority.MISS, (), untagged, Reason.UPLINK)


def _spoof_guard() -> Iterator[Flow]:
    yield _flow(p.SPOOF_GUARD, Priority.BAN, (TAGGED,), (), Reason.NO_TAG)
    for match in (*DHCP_REPLIES, *(icmp(kind) for kind in sorted(ICMP_ROUTER_ONLY))):
        yield _flow(p.SPOOF_GUARD, Priority.BAN, match, (), Reason.NO_SERVER)
    for kind in sorted(ICMPV6_ROUTER_ONLY):
        yield _flow(p.SPOOF_GUARD, Priority.BAN, icmpv6(kind, None), (), Reason.NO_SERVER)


def _egress() -> Iterator[Flow]:
    """Its source is its own.  What it may always send goes on; everything else needs a rule."""
    unspecified = m.IPV6_SRC(0)
    for kind in NEIGHBOUR_TYPES:
        # Open vSwitch shows no target and no options where they are malformed or given twice (lib/flow.c,
        # parse_icmpv6), but a receiver may use what it finds.
        malformed = (*icmpv6(kind), m.ND_TARGET(0))
        yield _flow(p.EGRESS, Priority.BAN, malformed, (), Reason.SPOOF)
    solicitation = (*icmpv6(NEIGHBOUR_SOLICITATION), unspecified, m.ND_SLL(NO_LINK_LAYER))
    yield _flow(p.EGRESS, Priority.FIRST, solicitation, (to(p.ND_TARGET),), Reason.NEIGHBOUR)
    for kind in sorted(ICMPV6_FROM_NOWHERE.difference(NEIGHBOUR_TYPES)):
        yield _flow(p.EGRESS, Priority.FIRST, (*icmpv6(kind), unspecified), (to(p.FORWARD),), Reason.STANDING)
    yield _flow(p.EGRESS, Priority.SECOND, (IPV6, unspecified), (), Reason.SPOOF)
    for match in DHCP_REQUESTS:
        yield _flow(p.EGRESS, Priority.THIRD, match, (to(p.FORWARD),), Reason.DHCP_CLIENT)
    for kind in sorted(ICMPV6_FROM_ENDPOINT.difference(NEIGHBOUR_TYPES)):
        yield _flow(p.EGRESS, Priority.THIRD, icmpv6(kind), (to(p.FORWARD),), Reason.STANDING)
    for kind in NEIGHBOUR_TYPES:
        yield _flow(p.EGRESS, Priority.THIRD, icmpv6(kind), (to(p.ND_GUARD),), Reason.NEIGHBOUR)
        yield _flow(p.EGRESS, Priority.FOURTH, icmpv6(kind, None), (), Reason.SPOOF)
    yield from _track(EGRESS_SIDE)


def _track(side: Side) -> Iterator[Flow]:
    """Stateless endpoints go straight to the rules, all others by conntrack."""
    for family in (IP, IPV6):
        stateless = (family, IS_STATELESS)
        later = (load(side.rule, p.FRAGMENT_HINT), to(side.verdict))
        yield _flow(side.entry, Priority.FIFTH, (*stateless, LATER_FRAGMENT), later, Reason.FRAGMENT)
        yield _flow(side.entry, Priority.SIXTH, stateless, (to(side.policy),), Reason.UNTRACKED)
        yield _flow(side.entry, Priority.EIGHTH, (family,), (Ct(p.ZONE, table=side.state.number),), Reason.TRACK)


def _neighbour_discovery() -> Iterator[Flow]:
    """The link-layer option may be left out (RFC 4861 sections 4.3 and 4.4); the per-endpoint flows are elsewhere."""
    solicitation = (*icmpv6(NEIGHBOUR_SOLICITATION), m.ND_SLL(NO_LINK_LAYER))
    advertisement = (*icmpv6(NEIGHBOUR_ADVERTISEMENT), m.ND_TLL(NO_LINK_LAYER))
    yield _flow(p.ND_GUARD, Priority.FIRST, solicitation, (to(p.FORWARD),), Reason.NEIGHBOUR)
    yield _flow(p.ND_GUARD, Priority.FIRST, advertisement, (to(p.ND_TARGET),), Reason.NEIGHBOUR)


class Side(NamedTuple):
    """The tables of one side.

    What is said twice, once for each direction, is said about sides.
    """

    entry: Table
    state: Table
    data: Table
    policy: Table
    verdict: Table
    gate: Table
    accept: Table
    rule: m.Field


EGRESS_SIDE = Side(
    p.EGRESS,
    p.EGRESS_STATE,
    p.EGRESS_DATA,
    p.EGRESS_POLICY,
    p.EGRESS_VERDICT,
    p.EGRESS_GATE,
    p.FORWARD,
    p.EGRESS_RULE,
)
INGRESS_SIDE = Side(
    p.INGRESS,
    p.INGRESS_STATE,
    p.INGRESS_DATA,
    p.INGRESS_POLICY,
    p.INGRESS_VERDICT,
    p.INGRESS_GATE,
    p.COMMIT,
    p.INGRESS_RULE,
)


def _state(side: Side) -> Iterator[Flow]:
    """Accepted connections pass without a look at the rules, if it was *this endpoint* that accepted them.

    A connection is remembered with the endpoints that accepted it, and their flows (see `endpoints`) let it pass.  What
    an endpoint sends of a connection that it began is known by its source address, which the spoof guard has checked,
    unless it has address pairs: others may have the same.
    Where nobody remembers (the endpoint was plugged after the connection began; the packet is sent to another endpoint
    than the first one was) the rules are asked.

    Later fragments, which only the userspace datapath shows, have no ports to ask the rules about.  They skip them, and
    wait at the gate for the first one, which does not.

    What a helper expects carries the mark and the label of its control connection for good, so nothing that is read
    there is about it: it has a table of its own (see `helpers`).

    What ends a TCP connection begins none, though the userspace datapath's conntrack says so.  The middle of one may: a
    live connection survives that conntrack has forgotten it.  In the kernel both are so by itself.
    """
    table = side.state
    yield _flow(table, Priority.BAN, (m.ct_state("+trk+inv"),), (), Reason.INVALID)
    for family in (IP, IPV6):
        for ending in TCP_ENDINGS:
            match = (family, m.IP_PROTO(TCP), ending, m.ct_state("+trk+new"))
            yield _flow(table, Priority.BAN, match, (), Reason.INVALID)
    yield _flow(table, Priority.FIRST, (m.ct_state("+trk"), m.CT_MARK(p.BLOCKED, p.BLOCKED)), (), Reason.BLOCKED)
    if side is EGRESS_SIDE:
        began = (p.ENDPOINT(0, p.PAIRED), m.ct_state("+trk-new-rpl"), m.CT_MARK(p.EGRESS_OK, p.EGRESS_OK))
        yield _flow(table, Priority.THIRD, began, (to(side.accept),), Reason.ESTABLISHED)
    skip = (load(side.rule, p.FRAGMENT_HINT), to(side.verdict))
    for family in (IP, IPV6):
        yield _flow(table, Priority.FOURTH, (family, LATER_FRAGMENT, m.ct_state("+trk")), skip, Reason.FRAGMENT)
    yield _flow(table, Priority.FIFTH, (m.ct_state("+trk"),), (to(side.policy),), Reason.JUDGE)


def _data(side: Side) -> Iterator[Flow]:
    """What no endpoint's flow takes (see `helpers`) is dropped, and so is a data connection that begins in fragments.

    The gate of an endpoint would forget that it is one.
    """
    for family, protocol in product((IP, IPV6), (TCP, UDP)):
        related = (family, m.IP_PROTO(protocol), m.ct_state("+trk+rel"))
        yield _flow(side.state, Priority.SECOND, related, (to(side.data),), Reason.EXPECTED)
    # Of these Open vSwitch shows the fragment header, not the protocol behind it.
    later = (IPV6, LATER_FRAGMENT, m.ct_state("+trk+rel"))
    yield _flow(side.state, Priority.SECOND, later, (to(side.data),), Reason.EXPECTED)
    for family in (IP, IPV6):
        yield _flow(side.data, Priority.BAN, (family, FRAGMENT, m.ct_state("+trk+new")), (), Reason.UNEXPECTED)


def _verdict(side: Side) -> Iterator[Flow]:
    """Fragments go on when all of their datagram have been accepted at this endpoint: conntrack reassembles them.

    A first fragment so short that Open vSwitch shows port 0, which nobody uses, hides the port from a tier that denies
    it (RFC 1858 section 3): it is not accepted.
    """
    for says, why in ((p.REFUSED, Reason.REFUSED), (p.REFUSED | p.REJECTED, Reason.REJECTED)):
        refused = side.rule(says, p.REFUSED | p.REJECTED)
        yield _flow(side.verdict, Priority.BAN, (refused,), (), why)
    accepted = ACCEPTED[side.rule]
    for family, (protocol, port) in product((IP, IPV6), PORT_FIELD.items()):
        short = (family, FIRST_FRAGMENT, m.IP_PROTO(protocol), port(0), accepted)
        yield _flow(side.verdict, Priority.FIRST, short, (), Reason.NO_PORTS)
    wait = (Ct(p.GATE_ZONE, table=side.gate.number),)
    for family in (IP, IPV6):
        yield _flow(side.verdict, Priority.SECOND, (family, FRAGMENT, accepted), wait, Reason.FRAGMENT)
    yield _flow(side.verdict, Priority.THIRD, (accepted,), (to(side.accept),), Reason.ACCEPTED)


def _gates() -> Iterator[Flow]:
    """What the gate's zone says of the connection means nothing outside it.

    Between two sides that track, "new" stays true: both ask their rules.  A stateless side's fragments are untracked
    again, unless the other side has a connection to remember.  `-inv` matters: before Open vSwitch 3.6 (and 3.2.6,
    3.3.5, 3.4.3, 3.5.1) the userspace datapath let fragments that waited in vain come out as invalid, whoever's packet
    was being looked at.
    """
    whole = m.ct_state("+trk-inv")
    untrack = (CtClear(), to(p.FORWARD))
    yield _flow(p.EGRESS_GATE, Priority.FIRST, (whole, IS_STATELESS), untrack, Reason.COMPLETE)
    yield _flow(p.EGRESS_GATE, Priority.SECOND, (whole,), (to(p.FORWARD),), Reason.COMPLETE)
    alone = (whole, IS_STATELESS, p.EGRESS_RULE(0))
    yield _flow(p.INGRESS_GATE, Priority.FIRST, alone, (CtClear(), to(p.COMMIT)), Reason.COMPLETE)
    yield _flow(p.INGRESS_GATE, Priority.SECOND, (whole,), (to(p.COMMIT),), Reason.COMPLETE)


def _rules(rule: m.Field, tiers: Table, rules: Table, v4: Table, v6: Table) -> Iterator[Flow]:
    """The first rule that speaks is the only one, wherever the others would be asked."""
    for table in (tiers, rules, v4, v6):
        for bit in (p.HINT_BIT, p.REFUSED, p.LEFT_TO_GROUPS):
            yield _flow(table, Priority.BAN, (rule(bit, bit),), (), Reason.SPOKEN)
    yield _flow(rules, Priority.SECOND, (IP,), (to(v4),), Reason.RULES)
    yield _flow(rules, Priority.SECOND, (IPV6,), (to(v6),), Reason.RULES)


def _forward() -> Iterator[Flow]:
    """Out first: it needs the packet's own VLAN tag, and conntrack is asked only there."""
    many = (to(p.LEAVE), to(p.FAN_OUT))
    yield _flow(p.FORWARD, Priority.FIRST, (GROUP_ADDRESSED,), many, Reason.FLOOD)
    yield _flow(p.FORWARD, Priority.MISS, (), (to(p.LEAVE),), Reason.LEAVE)


def _always_delivered(table: Table, onward: Table) -> Iterator[Flow]:
    """What endpoints get without rules; of two kinds a network may name who sends them."""
    ask = (*DHCP_REPLIES, ROUTER_ADVERTISEMENTS)
    for match in ((ARP,), *ask, *map(icmpv6, sorted(ICMPV6_TO_ENDPOINT.difference({ROUTER_ADVERTISEMENT})))):
        goes = p.TRUSTED if match in ask else onward
        yield _flow(table, Priority.FIRST, match, (to(goes),), Reason.STANDING)


def _trusted() -> Iterator[Flow]:
    """What a network says of it comes first (see `trusted`)."""
    yield _flow(p.TRUSTED, Priority.FOURTH, (GROUP_ADDRESSED,), (to(p.FLOOD),), Reason.STANDING)
    yield _flow(p.TRUSTED, Priority.FIFTH, (), (to(p.DELIVER),), Reason.STANDING)


def _fan_out() -> Iterator[Flow]:
    yield from _always_delivered(p.FAN_OUT, p.FLOOD)
    for family in (IP, IPV6):
        yield _flow(p.FAN_OUT, Priority.SECOND, (family,), (to(p.FAN_OUT_RULES),), Reason.JUDGE)


def _ingress() -> Iterator[Flow]:
    yield from _always_delivered(p.INGRESS, p.DELIVER)
    yield from _track(INGRESS_SIDE)
    for family in (IP, IPV6):
        tracked = (family, m.ct_state("+trk"))
        yield _flow(p.INGRESS, Priority.SEVENTH, tracked, (to(p.INGRESS_STATE),), Reason.JUDGE)


def _deliver(hook: Hook) -> Iterator[Flow]:
    """Out of the port that ENDPOINT names; 0, nobody, is no port."""
    out = (*hook.last, UNTAG, OutputTo(Place(p.ENDPOINT, 0, 16)))
    yield _flow(p.DELIVER, Priority.FIRST, (), out, Reason.DELIVER)


def _remark() -> Iterator[Flow]:
    """Write BLOCKED, or clear it where the packet says that its connection is accepted.

    Where the packet says that its connection is taken over, registers have what is written, unless ovsfw has written
    something meanwhile.  Neutron's own driver marks what it has cut with the same bit, and with nothing else.

    Only into what conntrack knows: for a connection that is gone nothing is made, but where a helper is concerned (see
    `remark`).  Conntrack need not find the packet valid, because its sequence numbers are made up.
    """
    taken_over = p.EGRESS_RULE(p.TAKEN_OVER)
    yield _flow(p.REMARK, Priority.FIRST, (taken_over,), (), Reason.REMARK)
    for family in (IP, IPV6):
        known = (family, m.ct_state("+trk-new"))
        live, block = _write_blocked(0), _write_blocked(1)
        foreign = m.CT_MARK(0, (1 << m.CT_MARK.bits) - 1 - p.BLOCKED)
        yield _flow(p.REMARK, Priority.BAN, (*known, foreign, taken_over), _TAKE_OVER, Reason.REMARK)
        yield _flow(p.REMARK, Priority.FIRST, (*known, ACCEPTED[p.EGRESS_RULE]), live, Reason.REMARK)
        yield _flow(p.REMARK, Priority.SECOND, known, block, Reason.REMARK)
        forgotten = (family, m.ct_state("+trk+new"), p.EGRESS_RULE(p.HELPED, p.HELPED))
        yield _flow(p.REMARK, Priority.SECOND, forgotten, _write_blocked(1, Load(p.BARRED, 1)), Reason.REMARK)


# See `remark.take_over_actions`.
_TAKE_OVER = (
    Ct(
        p.ZONE,
        commit=True,
        exec=(
            Move(p.WRITTEN_MARK, Place(m.CT_MARK, 0, 32)),
            Move(Place(p.SENDER, 0, 32), p.EGRESS_LABEL),
            Move(Place(p.RECEIVER, 0, 32), p.INGRESS_LABEL),
        ),
    ),
)


def _write_blocked(value: int, *more: Load) -> tuple[Action, ...]:
    written = Load(Place(m.CT_MARK, p.BLOCKED.bit_length() - 1, 1), value)
    return (Ct(p.ZONE, commit=True, exec=(written, *more)),)


# Every port has a flow of its own in CLASSIFY; what comes from any other has not been looked at yet.
_MISS_REASON = {
    p.CLASSIFY: Reason.UNKNOWN_PORT,
    p.SPOOF_GUARD: Reason.SPOOF,
    p.ND_GUARD: Reason.SPOOF,
    p.ND_TARGET: Reason.SPOOF,
    p.EGRESS_DATA: Reason.UNEXPECTED,
    p.INGRESS_DATA: Reason.UNEXPECTED,
    p.EGRESS_VERDICT: Reason.DENIED,
    p.INGRESS_VERDICT: Reason.DENIED,
    p.INGRESS: Reason.NOT_DELIVERED,
    # What comes out of conntrack and is not what went in.
    p.EGRESS_GATE: Reason.INVALID,
    p.INGRESS_GATE: Reason.INVALID,
    p.LEFT: Reason.INVALID,
    p.COMMITTED: Reason.INVALID,
}


def _misses() -> Iterator[Flow]:
    """Explicit, so that what is dropped is counted and has a reason."""
    for table in p.TABLES:
        if table not in (p.HOOK, p.UPLINK, p.FORWARD, p.LEAVE, p.COMMIT, p.DELIVER):
            yield _flow(table, Priority.MISS, (), (), _MISS_REASON.get(table, Reason.MISS))
