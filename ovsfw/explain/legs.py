"""Which packets to ask a switch about, so that it confirms or contradicts what the policy says.  Pure.

Between two endpoints of one network on this host it is one packet.  Otherwise each end that is here is asked about its
own half: what it sends must leave, what comes from outside must arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ovsfw.compiler.bindings import Binding, Bindings, Uplink, VlanMode
from ovsfw.compiler.packets import DESTINATION_OF, IP_OF, SOURCE_OF
from ovsfw.explain.answer import Answer
from ovsfw.openflow import match as m
from ovsfw.openflow.text import format_packet
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Policy, Port
from ovsfw.policy.verdict import (
    ICMP,
    ICMPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    SCTP,
    TCP,
    UDP,
    Connection,
)

# Stands for whoever is outside; locally administered, so that no real machine has it.
ROUTER = 0x020000FFFFFE
_LOCAL_PORT = 0xFFFFFFFE
_PORT_FIELDS = {TCP: (m.TCP_SRC, m.TCP_DST), UDP: (m.UDP_SRC, m.UDP_DST), SCTP: (m.SCTP_SRC, m.SCTP_DST)}
_ICMP_FIELDS = {ICMP: (m.ICMP_TYPE, m.ICMP_CODE), ICMPV6: (m.ICMP6_TYPE, m.ICMP6_CODE)}
_HOPS = 64


@dataclass(frozen=True, slots=True)
class Leg:
    """One packet, in ovs-ofctl's syntax or (`packet`) as bytes in hex, and what must become of it.

    `target` is the ofport that it must come out of, 0 when it must leave by the switch's own forwarding.  `expected` is
    whether the policy says that it does, None when it says nothing of such packets.
    """

    what: str
    flow: str
    target: int
    expected: bool | None
    packet: str = ""


class NoLegError(Exception):
    """A switch cannot be asked, and why."""


def legs(policy: Policy, bindings: Bindings, said: Answer) -> tuple[Leg, ...]:
    """The packets to ask about.  Raises NoLegError when neither end is on this host, or no uplink leads to one."""
    connection = said.connection
    sender, receiver = bound(bindings, connection.sender), bound(bindings, connection.receiver)
    ours = _mac(policy, connection.sender, connection.source)
    theirs = _mac(policy, connection.receiver, connection.destination)
    if sender and receiver and sender.vlan == receiver.vlan:
        flow = _packet(connection, sender.ofport, 0, (ours, theirs))
        return (Leg("from end to end", flow, target(policy, receiver), said.allowed),)
    found = []
    if sender:
        flow = _packet(connection, sender.ofport, 0, (ours, ROUTER if receiver else theirs))
        found.append(Leg("out of this host", flow, 0, said.egress.judgement.allowed))
    if receiver:
        uplink, tag = way_in(bindings, receiver.vlan)
        flow = _packet(connection, uplink, tag, (ROUTER if sender else ours, theirs))
        found.append(Leg("into this host", flow, target(policy, receiver), said.ingress.judgement.allowed))
    if not found:
        raise NoLegError("neither end is plugged into it")
    return tuple(found)


def bound(bindings: Bindings, name: str | None) -> Binding | None:
    """Where a port is plugged in on this host, if it is."""
    return next((binding for binding in bindings.endpoints if binding.port_id == name), None)


def target(policy: Policy, receiver: Binding) -> int:
    """Into a port without port security the switch's own forwarding leads."""
    return receiver.ofport if policy.ports[receiver.port_id].port_security else 0


def way_in(bindings: Bindings, vlan: int) -> tuple[int, int]:
    """An uplink that carries a network, and the tag that its packets have there; no tag is 0.

    The bridge's own port is asked only for want of another.
    """
    fitting = [uplink for uplink in bindings.uplinks if uplink.mode is not VlanMode.ACCESS or uplink.vlan == vlan]
    if not fitting:
        network = f"VLAN {vlan}" if vlan else "untagged packets"
        raise NoLegError(f"it has no uplink that carries {network}, by which a packet from outside could come")
    best: Uplink = min(fitting, key=lambda uplink: (uplink.ofport == _LOCAL_PORT, uplink.ofport))
    return best.ofport, 0 if best.vlan == vlan else vlan


def _mac(policy: Policy, name: str | None, address: Prefix) -> int:
    return ROUTER if name is None else mac_for(policy.ports[name], address)


def mac_for(port: Port, address: Prefix) -> int:
    """The MAC that a port uses with an address: that of the claim which has it, else its own."""
    fitting = [claim.mac for claim in port.claims if claim.prefix.contains(address)]
    return port.mac if port.mac in fitting or not fitting else fitting[0]


def _packet(connection: Connection, in_port: int, vlan: int, macs: tuple[int, int]) -> str:
    """The first packet of a connection, as it comes in."""
    family = connection.family
    terms = [m.IN_PORT(in_port), m.ETH_SRC(macs[0]), m.ETH_DST(macs[1]), IP_OF[family]]
    if vlan:
        terms.append(m.VLAN_VID(m.VLAN_PRESENT | vlan))
    terms += [SOURCE_OF[family](connection.source.value), DESTINATION_OF[family](connection.destination.value)]
    terms += [m.IP_PROTO(connection.protocol), m.IP_TTL(_HOPS), *_service(connection)]
    return format_packet(tuple(terms))


def _service(connection: Connection) -> Iterator[m.Term]:
    protocol, kind = connection.protocol, connection.icmp_type
    if protocol in _PORT_FIELDS:
        source, destination = _PORT_FIELDS[protocol]
        yield from (source(connection.source_port), destination(connection.destination_port))
    elif protocol in _ICMP_FIELDS and (protocol == ICMPV6) == (connection.family is Family.IPV6):
        of_type, of_code = _ICMP_FIELDS[protocol]
        yield from (of_type(kind), of_code(connection.icmp_code))
        if protocol == ICMPV6 and kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
            about = connection.destination if kind == NEIGHBOUR_SOLICITATION else connection.source
            yield m.ND_TARGET(about.value)
