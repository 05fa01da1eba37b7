"""Helpers of conntrack: what they read in a control connection, and the data connections that they expect.

    control connection   let in by a rule with a helper, and committed with it; its label says so (HELPED)
    data connection      related (+rel) for good; carries the mark and the label that its control connection had when
                         the helper read of it, whatever a commit writes (set_mark() in Open vSwitch's lib/conntrack.c)

So a mark that a data connection has says who accepted its control connection: the two ends.  Data is for them alone;
docs/decisions/0013-data-is-between-two-ends.md has why each of these flows is as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import DESTINATION_OF, IP, IP_OF, IPV6, SOURCE_OF, to
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.compiler.remembering import ACCEPTED, EGRESS_ACCEPTS, INGRESS_ACCEPTS, ONE_WAY, remember
from ovsfw.compiler.standing import EGRESS_SIDE, INGRESS_SIDE, Side
from ovsfw.compiler.tiers import Course, ask
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Load, Place
from ovsfw.openflow.flow import Flow
from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.helpers import SERVICES, Service
from ovsfw.policy.model import Direction, Port

_NEW_DATA = m.ct_state("+trk+new+rel")


class _Way(NamedTuple):
    """A side, the address in a packet that is the endpoint's own there, and what is noted of the sender."""

    side: Side
    own: Mapping[Family, m.Field]
    known: tuple[Action, ...] = ()


_WAYS = {
    Direction.EGRESS: _Way(EGRESS_SIDE, SOURCE_OF, (Load(p.PARTY, 1),)),
    Direction.INGRESS: _Way(INGRESS_SIDE, DESTINATION_OF),
}


class _End(NamedTuple):
    """Where a control connection names one of its ends, and the rule that let it in there; nobody is both."""

    endpoint: Place
    rule: Place
    rank: Priority


_ENDS = {
    Direction.EGRESS: _End(p.ORIGIN, p.EGRESS_LABEL, Priority.SECOND),
    Direction.INGRESS: _End(p.TARGET, p.INGRESS_LABEL, Priority.THIRD),
}


# --- The same for every endpoint ------------------------------------------------------------------------------------


def helper_flows() -> Iterator[Flow]:
    """What a host needs when any endpoint of its has a rule with a helper."""
    for family, service in product((IP, IPV6), SERVICES.values()):
        kind = (family, m.IP_PROTO(service.protocol))
        yield from _commit_control(kind, service)
        yield from _commit_data(kind)


def _commit_control(kind: m.Match, helper: Service) -> Iterator[Flow]:
    """What a rule with a helper lets in is remembered with it; Open vSwitch calls it by its port."""
    egress, ingress = (register(p.HINT_BIT | p.HELPED, p.HINT_BIT | p.HELPED) for register in ACCEPTED)
    both = (*EGRESS_ACCEPTS, *INGRESS_ACCEPTS)
    cases = (
        (p.LEAVE, (egress,), p.LEFT, EGRESS_ACCEPTS),
        (p.COMMIT, (egress, ACCEPTED[p.INGRESS_RULE]), p.COMMITTED, both),
        (p.COMMIT, (ACCEPTED[p.EGRESS_RULE], ingress), p.COMMITTED, both),
        (p.COMMIT, (egress, p.INGRESS_RULE(0)), p.COMMITTED, EGRESS_ACCEPTS),
        (p.COMMIT, (p.EGRESS_RULE(0), ingress), p.COMMITTED, INGRESS_ACCEPTS),
    )
    for table, terms, onward, writes in cases:
        actions = remember(onward, *writes, alg=helper.port)
        yield table.flow(Priority.BAN, (*kind, ONE_WAY, *terms), actions, cookie(Reason.HELPER))


def _commit_data(kind: m.Match) -> Iterator[Flow]:
    """Remembered where the sender is an end, or else the other end is not of this host, so that it cannot be it.

    What is remembered lets answers pass.  Somebody who sends with the address of an end must not make conntrack take
    the other end's packets for answers to it.
    """
    elsewhere = (m.CT_MARK(0, p.EGRESS_OK), m.CT_MARK(0, _mask(p.TARGET)))
    known = p.SENDER(1 << p.PARTY.first, 1 << p.PARTY.first)
    for table, onward, accepted in (
        (p.LEAVE, p.LEFT, elsewhere),
        (p.COMMIT, p.COMMITTED, (*elsewhere, known)),
    ):
        for term in accepted:
            yield table.flow(Priority.BAN, (*kind, _NEW_DATA, term), remember(onward), cookie(Reason.COMMIT))
        yield table.flow(Priority.FIRST, (*kind, _NEW_DATA), (), cookie(Reason.UNEXPECTED))


# --- One endpoint ---------------------------------------------------------------------------------------------------


def data_flows(here: m.Term, ofport: int, port: Port, course: Course) -> Iterator[Flow]:
    """Data connections of control connections of which this endpoint is an end.

    New ones are judged by the tiers before the groups and by the helper's rule, or by all rules where this end's rule
    has no helper.  What conntrack remembers was accepted by every end of this host.
    """
    why = cookie(Reason.EXPECTED, ofport)
    for direction, way in _WAYS.items():
        table = way.side.data
        for of_end, end in _ENDS.items():
            named = _holds(m.CT_MARK, end.endpoint, ofport)
            remembered = (here, m.ct_state("+trk-new+rel"), named)
            yield table.flow(Priority.FIRST, remembered, (to(way.side.accept),), why)
            for address in _own(port):
                new = (IP_OF[address.family], here, way.own[address.family](address.value), _NEW_DATA, named)
                yield table.flow(Priority.FOURTH, new, (*way.known, to(way.side.policy)), why)
                for rule in course.helped:
                    if (rule.direction, rule.family) == (of_end, address.family):
                        asked = ask(Course(before=course.before, groups=(rule.hint | p.DATA,)), direction)
                        match = (*new, _holds(m.CT_LABEL, end.rule, rule.hint | p.HELPED))
                        yield table.flow(end.rank, match, (*way.known, *asked, to(way.side.verdict)), why)


def _own(port: Port) -> Iterator[Prefix]:
    """Its addresses, one by one: a prefix could contain both ends."""
    yield from sorted({claim.prefix for claim in port.claims if claim.prefix.is_host}.union(map(link_local, port.macs)))


def _holds(field: m.Field, place: Place, value: int) -> m.Term:
    """Some bits of a field have this value."""
    return field(value << place.first, _mask(place))


def _mask(place: Place) -> int:
    return ((1 << place.length) - 1) << place.first
