"""Flows that are the same for every policy: the frame into which endpoints, groups and networks are hung."""

from __future__ import annotations

from collections.abc import Iterator

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import (
    ARP,
    DHCP_REPLIES,
    DHCP_REQUESTS,
    GROUP_ADDRESSED,
    IP,
    IPV6,
    NO_LINK_LAYER,
    PRIORITY_TAGGED,
    TAGGED,
    icmpv6,
    load,
    to,
)
from ovsfw.compiler.pipeline import Priority, Reason, Table, cookie
from ovsfw.openflow import match as m
from ovsfw.openflow.action import NORMAL, Action, Ct, Load, Move, Place, whole
from ovsfw.openflow.flow import Flow
from ovsfw.policy.verdict import (
    ICMPV6_FROM_ENDPOINT,
    ICMPV6_FROM_NOWHERE,
    ICMPV6_ROUTER_ONLY,
    ICMPV6_TO_ENDPOINT,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
)

ACCEPTED = {register: register(p.HINT_BIT, p.HINT_BIT) for register in (p.EGRESS_RULE, p.INGRESS_RULE)}
IS_STATELESS = p.ENDPOINT(p.STATELESS, p.STATELESS)
NEIGHBOUR_TYPES = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)


def standing_flows() -> Iterator[Flow]:
    """All of them."""
    yield from _classify()
    yield from _spoof_guard()
    yield from _egress()
    yield from _neighbour_discovery()
    yield from _state(p.EGRESS_STATE, own=p.EGRESS_OK, other=p.INGRESS_OK, policy=p.EGRESS_POLICY, accept=p.FORWARD)
    yield from _state(p.INGRESS_STATE, own=p.INGRESS_OK, other=p.EGRESS_OK, policy=p.INGRESS_POLICY, accept=p.COMMIT)
    yield from _rules(p.EGRESS_RULES, p.EGRESS_RULE, p.EGRESS_RULES_V4, p.EGRESS_RULES_V6)
    yield from _rules(p.INGRESS_RULES, p.INGRESS_RULE, p.INGRESS_RULES_V4, p.INGRESS_RULES_V6)
    yield _flow(p.EGRESS_VERDICT, Priority.FIRST, (ACCEPTED[p.EGRESS_RULE],), (to(p.FORWARD),), Reason.ACCEPTED)
    yield _flow(p.INGRESS_VERDICT, Priority.FIRST, (ACCEPTED[p.INGRESS_RULE],), (to(p.COMMIT),), Reason.ACCEPTED)
    yield from _forward()
    yield from _leave()
    yield from _fan_out()
    yield from _ingress()
    yield from _commit()
    yield from _misses()


def _flow(table: Table, priority: Priority, match: m.Match, actions: tuple[Action, ...], why: Reason) -> Flow:
    return table.flow(priority, match, actions, cookie(why))


def _classify() -> Iterator[Flow]:
    """What comes in by a trunk port is in the network of its tag; ports with a tag have flows of their own."""
    vlan = Move(Place(m.VLAN_VID, 0, 12), Place(p.NETWORK, 0, 12))
    untagged = (load(p.NETWORK, p.UNTAGGED), to(p.FORWARD))
    tagged = (load(p.NETWORK, 0), vlan, to(p.FORWARD))
    yield _flow(p.CLASSIFY, Priority.HOOK_PRIORITY_TAG, (PRIORITY_TAGGED,), untagged, Reason.UPLINK)
    yield _flow(p.CLASSIFY, Priority.HOOK_TAG, (TAGGED,), tagged, Reason.UPLINK)
    yield _flow(p.CLASSIFY, Priority.HOOK_ANY, (), untagged, Reason.UPLINK)


def _spoof_guard() -> Iterator[Flow]:
    yield _flow(p.SPOOF_GUARD, Priority.BAN, (TAGGED,), (), Reason.NO_TAG)
    for match in (*DHCP_REPLIES, *(icmpv6(kind, None) for kind in sorted(ICMPV6_ROUTER_ONLY))):
        yield _flow(p.SPOOF_GUARD, Priority.BAN, match, (), Reason.NO_SERVER)


def _egress() -> Iterator[Flow]:
    """Its source is its own.  What it may always send goes on; everything else needs a rule."""
    unspecified = m.IPV6_SRC(0)
    solicitation = (*icmpv6(NEIGHBOUR_SOLICITATION), unspecified, m.ND_SLL(NO_LINK_LAYER))
    yield _flow(p.EGRESS, Priority.BAN, solicitation, (to(p.ND_TARGET),), Reason.NEIGHBOUR)
    for kind in sorted(ICMPV6_FROM_NOWHERE.difference(NEIGHBOUR_TYPES)):
        yield _flow(p.EGRESS, Priority.BAN, (*icmpv6(kind), unspecified), (to(p.FORWARD),), Reason.STANDING)
    yield _flow(p.EGRESS, Priority.FIRST, (IPV6, unspecified), (), Reason.SPOOF)
    for match in DHCP_REQUESTS:
        yield _flow(p.EGRESS, Priority.SECOND, match, (to(p.FORWARD),), Reason.DHCP_CLIENT)
    for kind in sorted(ICMPV6_FROM_ENDPOINT.difference(NEIGHBOUR_TYPES)):
        yield _flow(p.EGRESS, Priority.SECOND, icmpv6(kind), (to(p.FORWARD),), Reason.STANDING)
    for kind in NEIGHBOUR_TYPES:
        yield _flow(p.EGRESS, Priority.SECOND, icmpv6(kind), (to(p.ND_GUARD),), Reason.NEIGHBOUR)
        yield _flow(p.EGRESS, Priority.THIRD, icmpv6(kind, None), (), Reason.SPOOF)
    yield from _track(p.EGRESS, p.EGRESS_POLICY, p.EGRESS_STATE)


def _track(table: Table, policy: Table, state: Table) -> Iterator[Flow]:
    for family in (IP, IPV6):
        stateless = (family, IS_STATELESS)
        yield _flow(table, Priority.FOURTH, stateless, (to(policy),), Reason.UNTRACKED)
        yield _flow(table, Priority.FIFTH, (family,), (Ct(p.ZONE, table=state.number),), Reason.TRACK)


def _neighbour_discovery() -> Iterator[Flow]:
    """The link-layer option may be left out (RFC 4861 sections 4.3 and 4.4); the per-endpoint flows are elsewhere."""
    solicitation = (*icmpv6(NEIGHBOUR_SOLICITATION), m.ND_SLL(NO_LINK_LAYER))
    advertisement = (*icmpv6(NEIGHBOUR_ADVERTISEMENT), m.ND_TLL(NO_LINK_LAYER))
    yield _flow(p.ND_GUARD, Priority.FIRST, solicitation, (to(p.FORWARD),), Reason.NEIGHBOUR)
    yield _flow(p.ND_GUARD, Priority.FIRST, advertisement, (to(p.ND_TARGET),), Reason.NEIGHBOUR)


def _state(table: Table, *, own: int, other: int, policy: Table, accept: Table) -> Iterator[Flow]:
    """Accepted connections pass without a look at the rules, if it was *this side* that accepted them.

    A connection is remembered with the sides that accepted it.  In its original direction a packet needs the mark of
    the side it is at; a reply needs the mark of the other role, because the sender of replies is the responder.
    Without the mark (the endpoint was plugged after the connection began, or the packet passes this switch twice) the
    rules are asked.
    """
    yield _flow(table, Priority.BAN, (m.ct_state("+trk+inv"),), (), Reason.INVALID)
    yield _flow(table, Priority.FIRST, (m.ct_state("+trk"), m.CT_MARK(p.BLOCKED, p.BLOCKED)), (), Reason.BLOCKED)
    for flags, bit in (("-rpl", own), ("+rpl", other)):
        for kind in ("+est", "+rel"):
            match = (m.ct_state(f"+trk-new{kind}{flags}"), m.CT_MARK(bit, bit))
            yield _flow(table, Priority.SECOND, match, (to(accept),), Reason.ESTABLISHED)
    yield _flow(table, Priority.THIRD, (m.ct_state("+trk"),), (to(policy),), Reason.JUDGE)


def _rules(table: Table, verdict: m.Field, v4: Table, v6: Table) -> Iterator[Flow]:
    yield _flow(table, Priority.FIRST, (ACCEPTED[verdict],), (), Reason.ACCEPTED)
    yield _flow(table, Priority.SECOND, (IP,), (to(v4),), Reason.RULES)
    yield _flow(table, Priority.SECOND, (IPV6,), (to(v6),), Reason.RULES)


def _forward() -> Iterator[Flow]:
    """Out first: it needs the packet's own VLAN tag, and conntrack is asked only there."""
    many = (to(p.LEAVE), to(p.FAN_OUT))
    yield _flow(p.FORWARD, Priority.FIRST, (GROUP_ADDRESSED,), many, Reason.FLOOD)
    yield _flow(p.FORWARD, Priority.MISS, (), (to(p.LEAVE),), Reason.LEAVE)


def _remember(mark: Load, *labels: tuple[m.Field, Place]) -> Ct:
    """Commit with the mark and the hints of the rules that accepted."""
    return Ct(p.ZONE, commit=True, exec=(mark, *(Move(whole(rule), label) for rule, label in labels)))


_ONE_WAY = m.ct_state("+trk-rpl")
_EGRESS_MARK = Load(Place(m.CT_MARK, 1, 1), 1)
_INGRESS_MARK = Load(Place(m.CT_MARK, 2, 1), 1)
_BOTH_MARKS = Load(p.MARK_BITS, 3)
_EGRESS_HINT = (p.EGRESS_RULE, p.EGRESS_LABEL)
_INGRESS_HINT = (p.INGRESS_RULE, p.INGRESS_LABEL)


def _leave() -> Iterator[Flow]:
    remember = _remember(_EGRESS_MARK, _EGRESS_HINT)
    for family in (IP, IPV6):
        match = (family, _ONE_WAY, ACCEPTED[p.EGRESS_RULE])
        yield _flow(p.LEAVE, Priority.FIRST, match, (remember, NORMAL), Reason.COMMIT)
    yield _flow(p.LEAVE, Priority.MISS, (), (NORMAL,), Reason.LEAVE)


def _commit() -> Iterator[Flow]:
    """Only what a rule accepted in this pass is written; replies never are."""
    egress, ingress = ACCEPTED[p.EGRESS_RULE], ACCEPTED[p.INGRESS_RULE]
    cases = (
        (Priority.FIRST, (egress, ingress), _remember(_BOTH_MARKS, _EGRESS_HINT, _INGRESS_HINT)),
        (Priority.SECOND, (egress,), _remember(_EGRESS_MARK, _EGRESS_HINT)),
        (Priority.SECOND, (ingress,), _remember(_INGRESS_MARK, _INGRESS_HINT)),
    )
    for priority, terms, remember in cases:
        for family in (IP, IPV6):
            match = (family, _ONE_WAY, *terms)
            yield _flow(p.COMMIT, priority, match, (remember, to(p.DELIVER)), Reason.COMMIT)
    yield _flow(p.COMMIT, Priority.MISS, (), (to(p.DELIVER),), Reason.DELIVER)


def _always_delivered() -> Iterator[m.Match]:
    yield (ARP,)
    yield from DHCP_REPLIES
    for kind in sorted(ICMPV6_TO_ENDPOINT):
        yield icmpv6(kind)


def _fan_out() -> Iterator[Flow]:
    for match in _always_delivered():
        yield _flow(p.FAN_OUT, Priority.FIRST, match, (to(p.FLOOD),), Reason.STANDING)
    for family in (IP, IPV6):
        yield _flow(p.FAN_OUT, Priority.SECOND, (family,), (to(p.FAN_OUT_RULES),), Reason.JUDGE)


def _ingress() -> Iterator[Flow]:
    for match in _always_delivered():
        yield _flow(p.INGRESS, Priority.FIRST, match, (to(p.DELIVER),), Reason.STANDING)
    tracked = m.ct_state("+trk")
    for family in (IP, IPV6):
        stateless = (family, IS_STATELESS)
        yield _flow(p.INGRESS, Priority.SECOND, stateless, (to(p.INGRESS_POLICY),), Reason.UNTRACKED)
        yield _flow(p.INGRESS, Priority.THIRD, (family, tracked), (to(p.INGRESS_STATE),), Reason.JUDGE)
        track = (Ct(p.ZONE, table=p.INGRESS_STATE.number),)
        yield _flow(p.INGRESS, Priority.FOURTH, (family,), track, Reason.TRACK)


_MISS_REASON = {
    p.SPOOF_GUARD: Reason.SPOOF,
    p.ND_GUARD: Reason.SPOOF,
    p.ND_TARGET: Reason.SPOOF,
    p.EGRESS_VERDICT: Reason.DENIED,
    p.INGRESS_VERDICT: Reason.DENIED,
    p.INGRESS: Reason.NOT_DELIVERED,
}


def _misses() -> Iterator[Flow]:
    """Explicit, so that what is dropped is counted and has a reason."""
    for table in p.TABLES:
        if table not in (p.CLASSIFY, p.FORWARD, p.LEAVE, p.COMMIT):
            yield _flow(table, Priority.MISS, (), (), _MISS_REASON.get(table, Reason.MISS))
