"""Hypothesis strategies: policies that are valid, the bindings of a host, and connections worth judging."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from ovsfw.compiler import Binding, Bindings
from ovsfw.compiler.bindings import Uplink
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.helpers import unfit
from ovsfw.policy.model import (
    Action,
    AddressGroup,
    Claim,
    Direction,
    Helper,
    Log,
    Network,
    Policy,
    Port,
    PortRange,
    Position,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
    Tier,
)
from ovsfw.policy.verdict import (
    DHCP_SERVER,
    ICMP,
    ICMPV6,
    ROUTER_ADVERTISEMENT,
    SCTP,
    TCP,
    UDP,
    Connection,
    is_remote,
)

UPLINK = 99
# Ports `port-1` to `port-9` are in a policy's first network, `port-11` to `port-19` in its second; `port-11` has the
# address of `port-1`, and often its MAC.
NEXT_NETWORK = 10
TWO_NETWORKS = ("blue", "red")
VLANS = (0, 7, 8)
STRANGER = 50
# All of them, with at most five ports in each network.
OFPORTS = (*range(1, 6), *range(NEXT_NETWORK + 1, NEXT_NETWORK + 6), STRANGER, UPLINK)
# Small alphabets make things meet.
SERVICE_PORTS = (1, 79, 80, 81, 443, 1023, 1024, 65535)
PREFIXES = {
    Family.IPV4: ("10.0.0.0/24", "10.0.0.2/31", "10.0.1.0/24", "192.0.2.0/25", "192.0.2.1/32", "0.0.0.0/1"),
    Family.IPV6: ("2001:db8::/64", "2001:db8::2/127", "2001:db8:1::/64", "2001:db8:ff::1/128", "8000::/1"),
}
OUTSIDE = {Family.IPV4: ("192.0.2.1", "192.0.2.200", "203.0.113.9"), Family.IPV6: ("2001:db8:ff::1", "2001:db8:fe::7")}

# What a rule of an action may be told to log.
LOGS = {
    action: st.sampled_from([None, *(log for log in Log if action is not Action.PASS and log is not other)])
    for action, other in zip(Action, (Log.DROPPED, Log.ACCEPTED, Log.ACCEPTED, None), strict=True)
}

families = st.sampled_from(Family)


def address(family: Family, number: int) -> Prefix:
    """The `number`-th address of the test network."""
    return Prefix.parse(f"10.0.0.{number}" if family is Family.IPV4 else f"2001:db8::{number:x}")


def mac(number: int) -> int:
    """The MAC of the `number`-th port."""
    return 0x525400000000 | number


def number_of(name: str) -> int:
    """Of a port, by its id: also its ofport."""
    return int(name.rsplit("-", 1)[1])


def twin(policy: Policy, connection: Connection) -> Connection | None:
    """The same packet in the other network, between the ports there with the same numbers; None without such ports."""
    ends = [_twin_of(policy, name) for name in (connection.sender, connection.receiver)]
    if any(name is not None and name not in policy.ports for name in ends):
        return None
    return replace(connection, sender=ends[0], receiver=ends[1])


def _twin_of(policy: Policy, name: str | None) -> str | None:
    if name is None:
        return None
    away = NEXT_NETWORK if policy.ports[name].network_id != TWO_NETWORKS[1] else -NEXT_NETWORK
    return f"port-{number_of(name) + away}"


@st.composite
def port_ranges(draw: st.DrawFn) -> PortRange:
    """Borders of every kind."""
    first = draw(st.sampled_from((*SERVICE_PORTS, 0)))
    return PortRange(first, draw(st.sampled_from([port for port in SERVICE_PORTS if port >= first])))


@st.composite
def remotes(draw: st.DrawFn, family: Family, groups: list[str], address_groups: list[str]) -> Remote:
    """Any kind of far end."""
    return draw(
        st.one_of(
            st.none(),
            st.sampled_from(PREFIXES[family]).map(Prefix.parse),
            st.sampled_from(groups).map(RemoteGroup),
            st.sampled_from(groups).map(RemoteGroup),
            st.sampled_from(address_groups).map(RemoteAddressGroup),
        )
    )


# The connections of these strategies come from port 30000.
source_ports = st.sampled_from((None, None, None, PortRange(30000, 30001), PortRange(1, 29999)))


@st.composite
def with_source_ports(draw: st.DrawFn, policy: Policy) -> Policy:
    """The policy, some of whose rules ask for source ports: what documents cannot say and Neutron's agent can."""
    groups = {
        name: replace(
            group,
            rules=tuple(
                replace(rule, source_ports=draw(source_ports)) if rule.protocol in (TCP, UDP, SCTP) else rule
                for rule in group.rules
            ),
        )
        for name, group in policy.security_groups.items()
    }
    return replace(policy, security_groups=groups)


@st.composite
def rules(draw: st.DrawFn, name: str, groups: list[str], address_groups: list[str]) -> Rule:
    """One rule."""
    family = draw(families)
    icmp = ICMP if family is Family.IPV4 else ICMPV6
    protocol = draw(st.sampled_from((None, TCP, TCP, UDP, SCTP, icmp, 47)))
    ports = draw(st.one_of(st.none(), port_ranges(), port_ranges())) if protocol in (TCP, UDP, SCTP) else None
    kind = code = None
    if protocol == icmp:
        kind = draw(st.none() | st.sampled_from((8, 8, 0, 3) if family is Family.IPV4 else (128, 128, 129, 1)))
        code = draw(st.none() | st.sampled_from((0, 1))) if kind is not None else None
    return Rule(
        name,
        draw(st.sampled_from(Direction)),
        family,
        protocol,
        ports,
        kind,
        code,
        draw(remotes(family, groups, address_groups)),
        log=draw(LOGS[Action.ALLOW]),
    )


@st.composite
def security_groups(draw: st.DrawFn, name: str, groups: list[str], address_groups: list[str]) -> SecurityGroup:
    """A group; one in five is stateless."""
    stateful = draw(st.sampled_from((True, True, True, True, False)))
    chosen = tuple(draw(rules(f"{name}/{index}", groups, address_groups)) for index in range(draw(st.integers(0, 5))))
    if stateful:
        chosen = tuple(replace(rule, helper=draw(helpers(rule))) for rule in chosen)
    if draw(st.sampled_from((True, True, False))):
        chosen += tuple(Rule(f"{name}/out-{family.value}", Direction.EGRESS, family) for family in Family)
    return SecurityGroup(name, name, stateful, chosen, draw(st.none() | st.sampled_from(Log)))


def helpers(rule: Rule) -> st.SearchStrategy[Helper | None]:
    """One that fits, now and then: what a rule says of control connections."""
    fitting = [helper for helper in Helper if not unfit(replace(rule, helper=helper), stateful=True)]
    return st.sampled_from([None, *fitting])


@st.composite
def tiers(draw: st.DrawFn, name: str, groups: list[str], address_groups: list[str]) -> Tier:
    """Before or after the groups, for some ports or for all; its rules often say nothing of what is sent."""
    actions = draw(st.lists(st.sampled_from(Action), max_size=4))
    chosen = tuple(
        replace(draw(rules(f"{name}/{index}", groups, address_groups)), action=action, log=draw(LOGS[action]))
        for index, action in enumerate(actions)
    )
    scope = draw(st.none() | st.lists(st.sampled_from(groups), max_size=2, unique=True).map(tuple))
    return Tier(name, name, draw(st.sampled_from(Position)), scope, chosen)


@st.composite
def address_group(draw: st.DrawFn, name: str) -> AddressGroup:
    """Prefixes of both families, which may overlap."""
    texts = draw(st.lists(st.sampled_from((*PREFIXES[Family.IPV4], *PREFIXES[Family.IPV6])), max_size=4, unique=True))
    return AddressGroup(name, name, tuple(sorted(Prefix.parse(text) for text in texts)))


@st.composite
def ports(draw: st.DrawFn, number: int, groups: list[SecurityGroup], network: str | None) -> Port:
    """A port; its groups are all stateful or all stateless; without port security it has neither groups nor pairs."""
    inside = number % NEXT_NETWORK
    own_mac = mac(draw(st.sampled_from((inside, number))))
    kind = draw(st.sampled_from((True, True, True, False)))
    fitting = [group.id for group in groups if group.stateful is kind]
    few = draw(st.sampled_from((0, 1, 2, 2)))
    chosen = st.lists(st.sampled_from(fitting), min_size=min(few, len(fitting)), max_size=3, unique=True)
    names = tuple(sorted(draw(chosen))) if fitting else ()
    secure = draw(st.sampled_from((True,) * 7 + (False,)))
    pairs = draw(
        st.lists(
            st.builds(
                Claim,
                st.sampled_from((own_mac, 0x00005E000101)),
                st.sampled_from(("10.0.0.200", "10.0.0.128/30", "2001:db8::200", "0.0.0.0/0")).map(Prefix.parse),
            ),
            max_size=3,
            unique=True,
        )
    )
    fixed = tuple(
        address(family, inside) for family in draw(st.sampled_from(((Family.IPV4, Family.IPV6), (Family.IPV4,))))
    )
    return Port(
        f"port-{number}",
        own_mac,
        fixed,
        tuple(pairs) if secure else (),
        names if secure else (),
        port_security=secure,
        network_id=network,
    )


@st.composite
def policies(draw: st.DrawFn, max_ports: int = 5) -> Policy:
    """A valid policy whose ports are in one network, or in two with the same addresses."""
    names = [f"group-{index}" for index in range(draw(st.integers(1, 4)))]
    sets = ["set-0", "set-1"]
    groups = [draw(security_groups(name, names, sets)) for name in names]
    inside = draw(st.sampled_from(((None,), TWO_NETWORKS)))
    chosen = [
        draw(ports(place * NEXT_NETWORK + number, groups, network))
        for place, network in enumerate(inside)
        for number in range(1, draw(st.integers(2, max_ports)) + 1)
    ]
    return Policy(
        {port.id: port for port in chosen},
        {group.id: group for group in groups},
        {name: draw(address_group(name)) for name in sets},
        tuple(draw(tiers(f"tier-{index}", names, sets)) for index in range(draw(st.sampled_from((0, 0, 1, 2, 3))))),
        networks={network: draw(networks(network)) for network in inside},
    )


@st.composite
def networks(draw: st.DrawFn, name: str | None) -> Network:
    """Sometimes it trusts some of those outside only."""
    sources = [Prefix.parse(text) for found in OUTSIDE.values() for text in found]
    trusted = st.none() | st.lists(st.sampled_from(sources), max_size=3, unique=True).map(tuple)
    return Network(name, draw(trusted), draw(trusted))


@st.composite
def from_a_server(draw: st.DrawFn, connection: Connection) -> Connection:
    """Between the same two, what only servers and routers send."""
    if connection.family is Family.IPV6 and draw(st.booleans()):
        return replace(
            connection, protocol=ICMPV6, icmp_type=ROUTER_ADVERTISEMENT, source_port=0, destination_port=0, icmp_code=0
        )
    ports = DHCP_SERVER[connection.family]
    return replace(
        connection, protocol=UDP, source_port=ports.source, destination_port=ports.destination, icmp_type=0, icmp_code=0
    )


@st.composite
def bindings_for(draw: st.DrawFn, policy: Policy) -> Bindings:
    """Most ports are here, each network in a VLAN, sometimes with a port that no policy knows; one uplink."""
    here = [port for _, port in sorted(policy.ports.items()) if draw(st.sampled_from((True, True, True, False)))]
    vlans = draw(st.permutations(VLANS))
    vlan_of = dict(zip(sorted({port.network_id or "" for port in policy.ports.values()}), vlans, strict=False))
    bound = [Binding(port.id, number_of(port.id), vlan_of[port.network_id or ""]) for port in here]
    if draw(st.booleans()):
        bound.append(Binding("nobody", STRANGER, vlans[0]))
    return Bindings(tuple(bound), (Uplink(UPLINK),))


@st.composite
def connections(draw: st.DrawFn, policy: Policy) -> Connection:
    """Between two ports of a network, or a port and the world; now and then from an address that is not its own.

    Most of them are aimed at a rule, or just beside it.
    """
    inside = policy.ports[draw(st.sampled_from(sorted(policy.ports)))].network_id
    here = sorted(name for name, port in policy.ports.items() if port.network_id == inside)
    aims = [(rule, name) for rule in policy.rules for name in here if _is_asked(policy, rule, name)]
    aim, near = draw(st.sampled_from([(None, None), *aims, *aims]))
    family = aim.family if aim else draw(families)
    sender, receiver = draw(_ends(policy, [*here, None], aim, near))
    far = {aim.direction: aim} if aim else {}
    source = draw(_address_of(policy, sender, family, far.get(Direction.INGRESS)))
    destination = draw(_address_of(policy, receiver, family, far.get(Direction.EGRESS)))
    anything = st.sampled_from((TCP, TCP, UDP, SCTP, ICMP if family is Family.IPV4 else ICMPV6, 47))
    protocol = aim.protocol if aim and aim.protocol is not None else draw(anything)
    source_port = destination_port = kind = 0
    if protocol in (TCP, UDP, SCTP):
        source_port, destination_port = 30000, draw(_port_near(aim))
    elif protocol in (ICMP, ICMPV6):
        # A request with a code is none to conntrack (docs/security.md).
        kind = 8 if family is Family.IPV4 else 128
    return Connection(sender, receiver, source, destination, protocol, source_port, destination_port, kind, 0)


def _is_asked(policy: Policy, rule: Rule, name: str) -> bool:
    """Whether a port has the group or the tier that a rule is in; never for one that says nothing in particular."""
    port = policy.ports[name]
    if rule.protocol is None and rule.remote is None:
        return False
    tiers = {tier.id for position in Position for tier in policy.tiers_for(port.security_groups, position)}
    return port.port_security and rule.id.partition("/")[0] in tiers.union(port.security_groups)


@st.composite
def _ends(
    draw: st.DrawFn, policy: Policy, names: list[str | None], aim: Rule | None, near: str | None
) -> tuple[str | None, str | None]:
    """Who sends to whom: anybody, or the one whose rule is aimed at and, if there is any, one that it speaks of."""
    if aim is None:
        sender = draw(st.sampled_from((*names, None)))
        return sender, draw(st.sampled_from([name for name in names if name != sender]))
    others = [name for name in names if name != near]
    fitting = [name for name in others if _spoken_of(policy, _addresses_of(policy, name, aim.family), aim)]
    far = draw(st.sampled_from(fitting or others))
    return (near, far) if aim.direction is Direction.EGRESS else (far, near)


def _port_near(aim: Rule | None) -> st.SearchStrategy[int]:
    """One of a rule's ports, or on the wrong side of its borders."""
    if aim is None or aim.ports is None:
        return st.sampled_from((*SERVICE_PORTS, 2, 1000, 65534))
    first, last = aim.ports
    return st.sampled_from([port for port in (first, last, last, first - 1, last + 1) if 0 < port < 65536])


@st.composite
def _address_of(draw: st.DrawFn, policy: Policy, name: str | None, family: Family, aim: Rule | None) -> Prefix:
    """One of its own, now and then not; of the far end of a rule that is aimed at, mostly one that it speaks of."""
    own = _addresses_of(policy, name, family)
    outside = [Prefix.parse(text) for text in OUTSIDE[family]]
    spoken_of = _spoken_of(policy, own, aim)
    return draw(st.sampled_from(draw(st.sampled_from((*[spoken_of or own[:1]] * 4, own, outside)))))


def _addresses_of(policy: Policy, name: str | None, family: Family) -> list[Prefix]:
    """Its own first, and what its pairs let it use; for nobody those outside."""
    if name is None:
        return [Prefix.parse(text) for text in OUTSIDE[family]]
    claimed = [claim.prefix for claim in policy.ports[name].pairs if claim.prefix.family is family]
    paired = (each if each.is_host else Prefix(family, each.value, family.bits) for each in claimed if each.length)
    return [address(family, number_of(name) % NEXT_NETWORK), *paired]


def _spoken_of(policy: Policy, addresses: list[Prefix], aim: Rule | None) -> list[Prefix]:
    return [each for each in addresses if aim and is_remote(policy, aim.remote, each)]
