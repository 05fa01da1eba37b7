"""One endpoint: who it is, what it may send as, its groups, and the connections it has accepted."""

from __future__ import annotations

from collections.abc import Iterator

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Binding
from ovsfw.compiler.helpers import data_flows
from ovsfw.compiler.packets import ARP, IP_OF, IPV6, SOURCE_OF, icmpv6, load, prefix_terms, to, udp
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.compiler.recording import LOG_DROPPED
from ovsfw.compiler.tiers import Course, ask
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action
from ovsfw.openflow.flow import Flow
from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.model import Claim, Direction, Port
from ovsfw.policy.verdict import BROADCAST, DHCP_CLIENT, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION

ARP_REQUEST = 1


def network_of(vlan: int) -> int:
    """The value of NETWORK for a VLAN; 0 is untagged."""
    return vlan or p.UNTAGGED


def endpoint_value(binding: Binding, port: Port, *, stateless: bool) -> int:
    """The value of ENDPOINT."""
    return binding.ofport | (p.STATELESS if stateless else 0) | (p.PAIRED if port.pairs else 0)


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


def endpoint_flows(  # noqa: PLR0913 - everything about it
    binding: Binding, port: Port, course: Course, *, stateless: bool, logs_drops: bool = False, helps: bool = False
) -> Iterator[Flow]:
    """Everything about one endpoint but the way to it, which is the network's.  `course` is whose rules it has.

    `logs_drops`: what none of its rules accepts is logged.  `helps`: an endpoint of this host has a rule with a helper.
    """
    value = endpoint_value(binding, port, stateless=stateless)
    here = p.ENDPOINT(value)
    hint = binding.ofport
    network = load(p.NETWORK, network_of(binding.vlan))
    enter = (*judge_for(hint, value), load(p.SENDER, remembered(hint)), network, to(p.SPOOF_GUARD))
    yield p.CLASSIFY.flow(Priority.SECOND, (m.IN_PORT(hint),), enter, cookie(Reason.CLASSIFY, hint))
    for claim in _claims(port):
        yield from _claim(here, claim, hint)
    for mac in port.macs:
        yield from _mac(here, mac, hint)
    why = cookie(Reason.GROUPS, hint)
    for direction, policy, verdict in (
        (Direction.EGRESS, p.EGRESS_POLICY, p.EGRESS_VERDICT),
        (Direction.INGRESS, p.INGRESS_POLICY, p.INGRESS_VERDICT),
    ):
        yield policy.flow(Priority.FIRST, (here,), (*ask(course, direction), to(verdict)), why)
        if logs_drops:
            # Below all that passes, above the flow that drops for every endpoint.
            yield verdict.flow(Priority.FIFTH, (here,), (LOG_DROPPED,), cookie(Reason.DENIED, hint))
    if remembered(hint) and not stateless:
        yield from _established(here, hint, is_paired=bool(port.pairs))
        if helps:
            yield from data_flows(here, hint, port, course)


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


def _claims(port: Port) -> Iterator[Claim]:
    """What the port claims, and the link-local address that each of its MACs makes."""
    claims = port.claims
    yield from claims
    for mac in port.macs:
        own = link_local(mac)
        if not any(claim.mac == mac and claim.prefix.contains(own) for claim in claims):
            yield Claim(mac, own)


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
