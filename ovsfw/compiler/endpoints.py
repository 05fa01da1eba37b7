"""One endpoint: who it is, what it may send as, its groups, and the connections it has accepted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Binding
from ovsfw.compiler.helpers import data_flows
from ovsfw.compiler.packets import ARP, IP_OF, IPV6, SOURCE_OF, icmpv6, load, prefix_terms, to, udp
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.compiler.recording import LOG_DROPPED
from ovsfw.compiler.template import Numbers, Template
from ovsfw.compiler.tiers import Course, Helped, ask
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action
from ovsfw.openflow.flow import Entry, Flow
from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.model import Claim, Direction, Port
from ovsfw.policy.verdict import BROADCAST, DHCP_CLIENT, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION

ARP_REQUEST = 1


def network_of(vlan: int) -> int:
    """The value of NETWORK for a VLAN; 0 is untagged."""
    return vlan or p.UNTAGGED


def endpoint_value(binding: Binding, port: Port, *, stateless: bool) -> int:
    """The value of ENDPOINT."""
    return _value(binding.ofport, stateless=stateless, is_paired=bool(port.pairs))


def _value(ofport: int, *, stateless: bool, is_paired: bool) -> int:
    return ofport | (p.STATELESS if stateless else 0) | (p.PAIRED if is_paired else 0)


def judge_for(ofport: int, value: int) -> tuple[Action, ...]:
    """From here on the packet is judged for this endpoint; `value` is that of ENDPOINT."""
    return load(p.ENDPOINT, value), load(p.GATE, p.FIRST_GATE | ofport)


def unknown_port(binding: Binding) -> Flow:
    """A port that no policy knows: fail closed.

    >>> from ovsfw.openflow.text import format_flow
    >>> format_flow(unknown_port(Binding("?", 3)))
    'cookie=0xf5f010200000003,table=100,priority=300,in_port=3 actions=drop'
    """
    why = cookie(Reason.UNKNOWN_PORT, binding.ofport)
    return p.CLASSIFY.flow(Priority.SECOND, (m.IN_PORT(binding.ofport),), (), why)


class Shape(NamedTuple):
    """What the flows of endpoints have in common besides numbers (see `template`).

    `claims` have a MAC address by its place, and a prefix by IP version and length; `course` says how many tiers and
    groups there are before, at and after, `helped` which way its rules with a helper are.
    """

    stateless: bool
    is_paired: bool
    is_remembered: bool
    logs_drops: bool
    macs: int
    claims: tuple[tuple[int, Family, int], ...]
    course: tuple[int, int, int]
    helped: tuple[tuple[Direction, Family], ...]


def endpoint_flows(  # noqa: PLR0913 - everything about it
    binding: Binding, port: Port, course: Course, *, stateless: bool, logs_drops: bool = False, helps: bool = False
) -> Iterator[Entry]:
    """Everything about one endpoint but the way to it, which is the network's.  `course` is whose rules it has.

    `logs_drops`: what none of its rules accepts is logged.  `helps`: an endpoint of this host has a rule with a helper.
    """
    shape, numbers = measured(binding, port, course, stateless=stateless, logs_drops=logs_drops)
    yield from _template(shape).flows(numbers)
    if helps and shape.is_remembered and not stateless:
        value = endpoint_value(binding, port, stateless=stateless)
        yield from data_flows(p.ENDPOINT(value), binding.ofport, port, course)


def measured(
    binding: Binding, port: Port, course: Course, *, stateless: bool, logs_drops: bool
) -> tuple[Shape, Numbers]:
    """The shape of an endpoint, and its numbers."""
    macs, claims = port.macs, _claims(port)
    shape = Shape(
        stateless,
        bool(port.pairs),
        bool(remembered(binding.ofport)),
        logs_drops,
        len(macs),
        tuple([(macs.index(mac), family, length) for mac, (family, _, length) in claims]),
        (len(course.before), len(course.groups), len(course.after)),
        tuple([(direction, family) for _, direction, family in course.helped]),
    )
    addresses = [prefix.value for _, prefix in claims]
    hints = [rule.hint for rule in course.helped]
    asked = (*course.before, *course.groups, *course.after, *hints)
    return shape, (binding.ofport, network_of(binding.vlan), *macs, *addresses, *asked)


@lru_cache(maxsize=1 << 8)
def _template(shape: Shape) -> Template:
    return Template(partial(endpoint_by_numbers, shape))


def endpoint_by_numbers(shape: Shape, numbers: Numbers) -> Iterator[Flow]:
    """The flows of an endpoint of some shape."""
    given = iter(numbers)
    ofport, network = next(given), next(given)
    macs = tuple(islice(given, shape.macs))
    claims = [Claim(macs[at], Prefix(family, next(given), length)) for at, family, length in shape.claims]
    before, groups, after = (tuple(islice(given, count)) for count in shape.course)
    course = Course(before, tuple(Helped(next(given), *way) for way in shape.helped), groups, after)
    value = _value(ofport, stateless=shape.stateless, is_paired=shape.is_paired)
    here = p.ENDPOINT(value)
    known = load(p.SENDER, remembered(ofport)), load(p.NETWORK, network)
    enter = (*judge_for(ofport, value), *known, to(p.SPOOF_GUARD))
    yield p.CLASSIFY.flow(Priority.SECOND, (m.IN_PORT(ofport),), enter, cookie(Reason.CLASSIFY, ofport))
    for claim in claims:
        yield from _claim(here, claim, ofport)
    for mac in macs:
        yield from _mac(here, mac, ofport)
    why = cookie(Reason.GROUPS, ofport)
    for direction, policy, verdict in (
        (Direction.EGRESS, p.EGRESS_POLICY, p.EGRESS_VERDICT),
        (Direction.INGRESS, p.INGRESS_POLICY, p.INGRESS_VERDICT),
    ):
        yield policy.flow(Priority.FIRST, (here,), (*ask(course, direction), to(verdict)), why)
        if shape.logs_drops:
            # Below all that passes, above the flow that drops for every endpoint.
            yield verdict.flow(Priority.FIFTH, (here,), (LOG_DROPPED,), cookie(Reason.DENIED, ofport))
    if shape.is_remembered and not shape.stateless:
        yield from _established(here, ofport, is_paired=shape.is_paired)


def remembered(ofport: int) -> int:
    """How a connection remembers an endpoint: in 15 bits, so not at all from 32768 on; its rules are always asked."""
    return ofport if ofport < 1 << p.TARGET.length else 0


def _established(here: m.Term, ofport: int, *, is_paired: bool) -> Iterator[Flow]:
    """Connections that this endpoint has accepted, and answers in them.

    What it sends of a connection that it began needs a flow of its own only where its address does not tell who it is.
    """
    cases = [
        (p.EGRESS_STATE, p.FORWARD, "+rpl", p.TARGET),
        (p.INGRESS_STATE, p.COMMIT, "-rpl", p.TARGET),
        (p.INGRESS_STATE, p.COMMIT, "+rpl", p.ORIGIN),
    ]
    if is_paired:
        cases.append((p.EGRESS_STATE, p.FORWARD, "-rpl", p.ORIGIN))
    for state, accept, flags, place in cases:
        mask = ((1 << place.length) - 1) << place.first
        match = (here, m.ct_state(f"+trk-new{flags}"), m.CT_MARK(ofport << place.first, mask))
        yield state.flow(Priority.THIRD, match, (to(accept),), cookie(Reason.ESTABLISHED, ofport))


def _claims(port: Port) -> list[Claim]:
    """What the port claims, and the link-local address that each of its MACs makes."""
    claims = port.claims
    own = [Claim(mac, link_local(mac)) for mac in port.macs]
    return [*claims, *(one for one in own if not any(_covers(claim, one) for claim in claims))]


def _covers(claim: Claim, other: Claim) -> bool:
    return claim.mac == other.mac and claim.prefix.contains(other.prefix)


def _claim(here: m.Term, claim: Claim, hint: int) -> Iterator[Flow]:
    """One address, or prefix, with its MAC."""
    mac, prefix = claim
    sender = (here, m.ETH_SRC(mac), IP_OF[prefix.family], *prefix_terms(SOURCE_OF[prefix.family], prefix))
    yield p.SPOOF_GUARD.flow(Priority.SECOND, sender, (to(p.EGRESS),), cookie(Reason.SOURCE, hint))
    yield from _arp(here, mac, prefix, hint) if prefix.family is Family.IPV4 else _target(here, claim, hint)


def _arp(here: m.Term, mac: int, prefix: Prefix, hint: int) -> Iterator[Flow]:
    """It speaks for itself, and probes only for its own address (RFC 5227 section 2.1.1)."""
    sender = (here, m.ETH_SRC(mac), ARP, m.ARP_SHA(mac))
    why = cookie(Reason.ARP, hint)
    onward = (to(p.FORWARD),)
    yield p.SPOOF_GUARD.flow(Priority.SECOND, (*sender, *prefix_terms(m.ARP_SPA, prefix)), onward, why)
    probe = (*sender, m.ARP_OP(ARP_REQUEST), m.ARP_SPA(0), *prefix_terms(m.ARP_TPA, prefix))
    yield p.SPOOF_GUARD.flow(Priority.FIRST, probe, onward, why)


def _target(here: m.Term, claim: Claim, hint: int) -> Iterator[Flow]:
    """It advertises its own addresses, each with its MAC, and looks for duplicates of them (RFC 4862 section 5.4)."""
    for kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        match = (here, m.ETH_SRC(claim.mac), *icmpv6(kind), *prefix_terms(m.ND_TARGET, claim.prefix))
        yield p.ND_TARGET.flow(Priority.FIRST, match, (to(p.FORWARD),), cookie(Reason.NEIGHBOUR, hint))


def _mac(here: m.Term, mac: int, hint: int) -> Iterator[Flow]:
    """What it may send before it has an address, and the link-layer address in its neighbour discovery."""
    source = m.ETH_SRC(mac)
    discover = (here, source, *udp(Family.IPV4, DHCP_CLIENT[Family.IPV4]), m.IPV4_SRC(0), m.IPV4_DST(BROADCAST))
    yield p.SPOOF_GUARD.flow(Priority.FIRST, discover, (to(p.FORWARD),), cookie(Reason.DHCP_CLIENT, hint))
    unspecified = (here, source, IPV6, m.IPV6_SRC(0))
    why = cookie(Reason.NEIGHBOUR, hint)
    yield p.SPOOF_GUARD.flow(Priority.FIRST, unspecified, (to(p.EGRESS),), why)
    for kind, option, onward in (
        (NEIGHBOUR_SOLICITATION, m.ND_SLL, p.FORWARD),
        (NEIGHBOUR_ADVERTISEMENT, m.ND_TLL, p.ND_TARGET),
    ):
        yield p.ND_GUARD.flow(Priority.FIRST, (here, source, *icmpv6(kind), option(mac)), (to(onward),), why)
