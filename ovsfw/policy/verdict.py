"""What a policy says about a connection, and which rules say so.

This is the naive meaning of a policy, kept so simple that it is obviously right: the compiled flows are tested against
it, and it is what `ovsfw why` tells people.  It knows connections, not packets: a reply belongs to the connection
that it answers and is not judged again, except with stateless groups, where every packet is judged as if it were first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.model import Action, Direction, Network, Policy, Port, PortRange, Position, Remote, Rule, Tier

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
# Protocols whose ports Open vSwitch can match (ovs-fields(7)), and those whose ports it cannot.
MATCHABLE_PORTS = frozenset({TCP, UDP, SCTP})
UNMATCHABLE_PORTS = frozenset({DCCP, UDPLITE})
# Next headers that Open vSwitch reads as IPv6 extension headers, looking at what is behind them (lib/flow.c,
# parse_ipv6_ext_hdrs): no packet is of these protocols.
EXTENSION_HEADERS = frozenset({0, 43, 44, 51, 60})
ANY_PORT = frozenset({PortRange(0, 65535), PortRange(1, 65535)})

# ICMPv6 types (RFC 4443, 4861, 2710, 3810).
MLD_QUERY, MLD_REPORT, MLD_DONE, MLD2_REPORT = 130, 131, 132, 143
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, REDIRECT = range(133, 138)
# What an endpoint may always send and always gets: without these there is no IPv6 at all.  The spoof guard looks
# closer at what it sends.
ICMPV6_FROM_ENDPOINT = frozenset(
    {
        MLD_QUERY, MLD_REPORT, MLD_DONE, MLD2_REPORT,
        ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT,
    }
)  # fmt: skip
ICMPV6_FROM_NOWHERE = ICMPV6_FROM_ENDPOINT.difference({MLD_QUERY, NEIGHBOUR_ADVERTISEMENT})
ICMPV6_TO_ENDPOINT = frozenset({MLD_QUERY, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT})
ICMPV6_ROUTER_ONLY = frozenset({ROUTER_ADVERTISEMENT, REDIRECT})
# Redirect (RFC 792) and router advertisement (RFC 1256).
ICMP_ROUTER_ONLY = frozenset({5, 9})


class Ports(NamedTuple):
    """UDP source and destination port."""

    source: int
    destination: int


BROADCAST = 0xFFFFFFFF
DHCP_CLIENT = {Family.IPV4: Ports(68, 67), Family.IPV6: Ports(546, 547)}
DHCP_SERVER = {Family.IPV4: Ports(67, 68), Family.IPV6: Ports(547, 546)}


@dataclass(frozen=True, slots=True)
class Connection:
    """The first packet of a connection.

    `sender` and `receiver` are port ids of the policy, None for a machine outside it.  `source_port` and
    `destination_port` stand for TCP, UDP, SCTP, DCCP and UDP-Lite; for ICMP and ICMPv6 `icmp_type` and `icmp_code` do.
    `control` is the connection in which this one was agreed, where a helper of conntrack has read that.
    """

    sender: str | None
    receiver: str | None
    source: Prefix
    destination: Prefix
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    control: Connection | None = None

    @property
    def family(self) -> Family:
        """IPv4 or IPv6."""
        return self.source.family

    def reversed(self) -> Connection:
        """The first reply.  ICMP echo requests are answered by echo replies; other ICMP has no reply."""
        echo = {8: 0, 0: 8} if self.family is Family.IPV4 else {128: 129, 129: 128}
        return replace(
            self,
            sender=self.receiver,
            receiver=self.sender,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
            icmp_type=echo.get(self.icmp_type, self.icmp_type),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one side says.

    `rules` are those that say so: all rules of its groups that allow the connection, or the one of `tier` that has
    decided, which may also deny it.  `reason` is why when no rule allows it.
    """

    allowed: bool
    rules: tuple[Rule, ...] = ()
    reason: str = ""
    tier: Tier | None = None

    @property
    def is_rejected(self) -> bool:
        """Whether the sender is to be told."""
        return any(rule.action is Action.REJECT for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed when both sides allow it: the sender on the way out, the receiver on the way in."""

    egress: Judgement
    ingress: Judgement

    @property
    def allowed(self) -> bool:
        """Whether the connection may live."""
        return self.egress.allowed and self.ingress.allowed


def verdict(policy: Policy, connection: Connection) -> Verdict:
    """Judge a connection by the policy.  Raises KeyError when sender or receiver is no port of the policy."""
    return Verdict(_egress(policy, connection), _ingress(policy, connection))


OUTSIDE = Judgement(allowed=True, reason="outside this policy")
NO_SECURITY = Judgement(allowed=True, reason="port security is off")


def _egress(policy: Policy, connection: Connection) -> Judgement:
    """May the sender send it?"""
    if connection.sender is None:
        return OUTSIDE
    port = policy.ports[connection.sender]
    if not port.port_security:
        return NO_SECURITY
    standing = _standing_egress(port, connection)
    return standing or _by_rules(policy, port, connection, Direction.EGRESS)


def _ingress(policy: Policy, connection: Connection) -> Judgement:
    """May the receiver get it?"""
    if connection.receiver is None:
        return OUTSIDE
    port = policy.ports[connection.receiver]
    if not port.port_security:
        return NO_SECURITY
    standing = _standing_ingress(policy.network_of(port), connection)
    return standing or _by_rules(policy, port, connection, Direction.INGRESS)


def _standing_egress(port: Port, connection: Connection) -> Judgement | None:
    """What holds for every endpoint, whatever its rules: the spoof guard, and what a network needs to work."""
    if _is_dhcp(connection, DHCP_SERVER) or _is_of_routers(connection):
        return Judgement(allowed=False, reason="an endpoint is no DHCP server and no router")
    if connection.source.value == 0 and (early := _before_an_address(connection)):
        return early
    if not owns(port, connection.source):
        return Judgement(allowed=False, reason=f"spoof guard: {connection.source} is not an address of this port")
    if _is_dhcp(connection, DHCP_CLIENT):
        return Judgement(allowed=True, reason="DHCP client")
    if _is_icmpv6(connection, ICMPV6_FROM_ENDPOINT):
        return Judgement(allowed=True, reason="neighbour discovery")
    return None


def _before_an_address(connection: Connection) -> Judgement | None:
    """What may come from 0.0.0.0 and from ::, the addresses of a host that has none yet."""
    if connection.family is Family.IPV4:
        if _is_dhcp(connection, DHCP_CLIENT) and connection.destination.value == BROADCAST:
            return Judgement(allowed=True, reason="DHCP client")
        return None
    if _is_icmpv6(connection, ICMPV6_FROM_NOWHERE):
        return Judgement(allowed=True, reason="neighbour discovery")
    return Judgement(allowed=False, reason="spoof guard: only neighbour discovery may come from ::")


def _standing_ingress(network: Network, connection: Connection) -> Judgement | None:
    """What every endpoint gets, whatever its rules, from those that its network trusts for it."""
    if _is_dhcp(connection, DHCP_SERVER):
        return _from_trusted(connection.source, network.dhcp_servers, "DHCP reply", "a DHCP server")
    if _is_icmpv6(connection, frozenset({ROUTER_ADVERTISEMENT})):
        return _from_trusted(connection.source, network.routers, "router advertisement", "a router")
    if _is_icmpv6(connection, ICMPV6_TO_ENDPOINT):
        return Judgement(allowed=True, reason="neighbour discovery")
    return None


def _from_trusted(source: Prefix, trusted: tuple[Prefix, ...] | None, what: str, role: str) -> Judgement:
    if trusted is None or any(prefix.contains(source) for prefix in trusted):
        return Judgement(allowed=True, reason=what)
    return Judgement(allowed=False, reason=f"{source} is not {role} that its network trusts")


def owns(port: Port, address: Prefix) -> bool:
    """Whether a port may send from an address: one it claims, or the link-local one that a MAC of its makes."""
    return any(claim.prefix.contains(address) for claim in port.claims) or any(
        address == link_local(mac) for mac in port.macs
    )


def _is_dhcp(connection: Connection, ports: dict[Family, Ports]) -> bool:
    sent = Ports(connection.source_port, connection.destination_port)
    return connection.protocol == UDP and sent == ports[connection.family]


def _is_of_routers(connection: Connection) -> bool:
    if connection.family is Family.IPV4:
        return connection.protocol == ICMP and connection.icmp_type in ICMP_ROUTER_ONLY
    return connection.protocol == ICMPV6 and connection.icmp_type in ICMPV6_ROUTER_ONLY


def _is_icmpv6(connection: Connection, types: frozenset[int]) -> bool:
    return (
        connection.family is Family.IPV6
        and connection.protocol == ICMPV6
        and connection.icmp_type in types
        and connection.icmp_code == 0
    )


def _by_rules(policy: Policy, port: Port, connection: Connection, direction: Direction) -> Judgement:
    """The first who has an opinion: the tiers before, a rule with a helper, the groups, the tiers after."""
    return (
        _by_tiers(policy.tiers_for(port.security_groups, Position.BEFORE), policy, connection, direction)
        or _by_helper(policy, port, connection.control)
        or _by_groups(policy, port, connection, direction)
        or _by_tiers(policy.tiers_for(port.security_groups, Position.AFTER), policy, connection, direction)
        or Judgement(allowed=False, reason=f"no {direction.value} rule of its groups allows it")
    )


def _by_tiers(
    tiers: tuple[Tier, ...], policy: Policy, connection: Connection, direction: Direction
) -> Judgement | None:
    """In order; within a tier, the first rule that matches speaks.  None when no tier has the last word."""
    for tier in tiers:
        matching = (rule for rule in tier.rules if rule.direction is direction and matches(policy, rule, connection))
        rule = next(matching, None)
        if rule is None:
            continue
        if rule.action is not Action.PASS:
            return _last_word(tier, rule)
        if tier.position is Position.BEFORE:
            return None
    return None


def _last_word(tier: Tier, rule: Rule) -> Judgement:
    if rule.action is Action.ALLOW:
        return Judgement(allowed=True, rules=(rule,), tier=tier)
    does = "rejects" if rule.action is Action.REJECT else "denies"
    return Judgement(allowed=False, rules=(rule,), reason=f"rule {rule.id} of tier {tier.id} {does} it", tier=tier)


def _by_helper(policy: Policy, port: Port, control: Connection | None) -> Judgement | None:
    """A rule with a helper that lets this port have a control connection lets it have the data connections, too."""
    if control is None:
        return None
    said = _egress(policy, control) if control.sender == port.id else _ingress(policy, control)
    rules = tuple(rule for rule in said.rules if rule.helper is not None)
    return Judgement(allowed=True, rules=rules) if rules else None


def _by_groups(policy: Policy, port: Port, connection: Connection, direction: Direction) -> Judgement | None:
    """Security groups are a union of allow rules."""
    rules = tuple(
        rule
        for group in port.security_groups
        for rule in policy.security_groups[group].rules
        if rule.direction is direction and matches(policy, rule, connection)
    )
    return Judgement(allowed=True, rules=rules) if rules else None


def matches(policy: Policy, rule: Rule, connection: Connection) -> bool:
    """Whether a rule speaks of a connection; the remote end is the destination on egress and the source on ingress."""
    far = connection.destination if rule.direction is Direction.EGRESS else connection.source
    return (
        rule.family is connection.family
        and rule.protocol in (None, connection.protocol)
        and _has_ports(rule, connection)
        and rule.icmp_type in (None, connection.icmp_type)
        and rule.icmp_code in (None, connection.icmp_code)
        and is_remote(policy, rule.remote, far)
    )


def _has_ports(rule: Rule, connection: Connection) -> bool:
    """A rule with ports of a protocol whose ports Open vSwitch cannot match matches nothing; tiers have none such."""
    asked = ((rule.ports, connection.destination_port), (rule.source_ports, connection.source_port))
    return all(
        ports is None
        or ports in ANY_PORT
        or (rule.protocol not in UNMATCHABLE_PORTS and ports.first <= port <= ports.last)
        for ports, port in asked
    )


def is_remote(policy: Policy, remote: Remote, far: Prefix) -> bool:
    """Whether a far end is one that rules with this remote speak of."""
    if remote is None:
        return True
    if isinstance(remote, Prefix):
        return remote.contains(far)
    return policy.has_member(remote, far)
