"""The policy: ports, security groups, tiers, rules and address groups, as plain frozen values.

The shapes follow the Neutron API (https://docs.openstack.org/api-ref/network/v2/#security-groups-security-groups).
A `Policy` is valid by construction only when it comes from `document` or another translator: those refuse what is
wrong; nothing below them checks again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ovsfw.policy.addresses import AddressSet, Family, Prefix

MAX_GROUPS = 500
"""Of one port.  Open vSwitch gives up on a packet after 4,096 resubmits, and each group takes some."""


class Direction(str, Enum):
    """Seen from the endpoint: ingress is towards it, egress is from it (Neutron's sense)."""

    INGRESS = "ingress"
    EGRESS = "egress"


class PortRange(NamedTuple):
    """Transport ports `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        """`80` or `80-90`."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class RemoteGroup:
    """The addresses of every port in a security group."""

    id: str


@dataclass(frozen=True, slots=True)
class RemoteAddressGroup:
    """The prefixes of an address group."""

    id: str


# None: any address of the rule's family.
Remote = Prefix | RemoteGroup | RemoteAddressGroup | None


class Action(str, Enum):
    """What becomes of a packet that a rule matches.

    The rules of a security group only allow.  In a tier, allow, deny and reject are the last word; pass leaves the word
    to what comes after the tiers before the groups, or to the next tier after them.
    """

    ALLOW = "allow"
    DENY = "deny"
    REJECT = "reject"
    PASS = "pass"  # noqa: S105 - no password


class Helper(str, Enum):
    """A helper of conntrack: it reads a control connection, and expects the data connections agreed in it."""

    FTP = "ftp"
    TFTP = "tftp"


class Log(str, Enum):
    """Which decisions are to be logged."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a security group, which allows, or of a tier, which does what its `action` says.

    `protocol` is an IP protocol number, None for any.  `ports` are destination ports and only stand with a protocol
    that has ports, and so do `source_ports`, which only Neutron's agent can ask for.  `icmp_type` and `icmp_code` only
    stand with ICMP (1) in IPv4 and ICMPv6 (58) in IPv6.  `helper` only stands in a stateful group, with one port.
    """

    id: str
    direction: Direction
    family: Family
    protocol: int | None = None
    ports: PortRange | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    remote: Remote = None
    action: Action = Action.ALLOW
    source_ports: PortRange | None = None
    log: Log | None = None
    helper: Helper | None = None


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A named list of allow rules; what no rule allows is dropped.

    `log` is for all its rules, and for what its ports drop because no rule accepts it.  `helped` are those of the rules
    that have a helper: they are asked for with every change, and few groups have any.
    """

    id: str
    name: str = ""
    stateful: bool = True
    rules: tuple[Rule, ...] = ()
    log: Log | None = None
    helped: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look at each rule once."""
        object.__setattr__(self, "helped", tuple(rule for rule in self.rules if rule.helper is not None))


@dataclass(frozen=True, slots=True)
class AddressGroup:
    """A named list of prefixes, for rules to refer to."""

    id: str
    name: str = ""
    prefixes: tuple[Prefix, ...] = ()


class Position(str, Enum):
    """Before the security groups, or after them: then only for what none of their rules has allowed."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Tier:
    """Rules of the operator, above or below those of the tenants; the first one that matches speaks.

    `applies_to` are security groups: the tier is for the ports in any of them.  None: for every filtered port, also
    those without groups.
    """

    id: str
    name: str = ""
    position: Position = Position.BEFORE
    applies_to: tuple[str, ...] | None = None
    rules: tuple[Rule, ...] = ()

    def concerns(self, groups: Iterable[str]) -> bool:
        """Whether it is for a filtered port with these groups."""
        return self.applies_to is None or not set(self.applies_to).isdisjoint(groups)


class Claim(NamedTuple):
    """A MAC and a prefix that a port may use as its own; the MAC is a 48-bit integer."""

    mac: int
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class Port:
    """A Neutron logical port; a member of its groups on every host, an endpoint where it is bound.

    `fixed_ips` are single addresses.  `pairs` are the allowed address pairs, each with its MAC filled in.
    `network_id` None means the one network without a name.
    """

    id: str
    mac: int
    fixed_ips: tuple[Prefix, ...] = ()
    pairs: tuple[Claim, ...] = ()
    security_groups: tuple[str, ...] = ()
    port_security: bool = True
    network_id: str | None = None
    name: str = ""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Everything the port may call its own: fixed addresses with its MAC, then the pairs; no duplicates, sorted."""
        own = {Claim(self.mac, address) for address in self.fixed_ips}
        return tuple(sorted(own.union(self.pairs)))

    @property
    def macs(self) -> tuple[int, ...]:
        """Its own MAC and those of its pairs, sorted."""
        return tuple(sorted({self.mac, *(pair.mac for pair in self.pairs)}))


@dataclass(frozen=True, slots=True)
class Network:
    """What holds for the ports of one network; `id` None is the one network without a name.

    `dhcp_servers` and `routers` are who may send DHCP (and DHCPv6) replies and router advertisements to its endpoints,
    None for anybody.  `connection_limit` is how many connections it may have on one host, None for any number.
    """

    id: str | None = None
    dhcp_servers: tuple[Prefix, ...] | None = None
    routers: tuple[Prefix, ...] | None = None
    connection_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the operator wants, host-independent."""

    ports: Mapping[str, Port] = field(default_factory=dict)
    security_groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    address_groups: Mapping[str, AddressGroup] = field(default_factory=dict)
    tiers: tuple[Tier, ...] = ()
    networks: Mapping[str | None, Network] = field(default_factory=dict)
    _sets: dict[RemoteGroup | RemoteAddressGroup, AddressSet] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @property
    def rules(self) -> Iterator[Rule]:
        """All of them: those of the security groups, then those of the tiers."""
        for group in self.security_groups.values():
            yield from group.rules
        for tier in self.tiers:
            yield from tier.rules

    def tiers_for(self, groups: Collection[str], position: Position) -> tuple[Tier, ...]:
        """The tiers of one position for a filtered port with these groups, in their order."""
        return tuple(tier for tier in self.tiers if tier.position is position and tier.concerns(groups))

    def network_of(self, port: Port) -> Network:
        """The network of a port; one of which nothing is said has no options."""
        return self.networks.get(port.network_id) or Network(port.network_id)

    def is_stateless(self, port: Port) -> bool:
        """Whether the port is filtered without conntrack.

        Neutron refuses a port with groups of both kinds, and so do our translators; a port without groups is stateful.
        """
        groups = port.security_groups
        return bool(groups) and not any(self.security_groups[group].stateful for group in groups)

    def members(self, remote: RemoteGroup | RemoteAddressGroup) -> Iterator[Prefix]:
        """The addresses behind a remote, in no order, possibly repeated.

        An allowed address pair of the whole world (0.0.0.0/0, ::/0) lets its port send from anywhere, but does not
        make the world a member of the port's groups (https://bugs.launchpad.net/bugs/1867119).
        """
        if isinstance(remote, RemoteAddressGroup):
            yield from self.address_groups[remote.id].prefixes
            return
        for port in self.ports.values():
            if remote.id in port.security_groups:
                yield from member_addresses(port)

    def has_member(self, remote: RemoteGroup | RemoteAddressGroup, address: Prefix) -> bool:
        """Whether one of `members` contains an address; the answers for all sets are prepared when first asked."""
        if not self._sets:
            self._sets.update(self._all_sets())
        return remote in self._sets and self._sets[remote].contains(address)

    def _all_sets(self) -> dict[RemoteGroup | RemoteAddressGroup, AddressSet]:
        sets: dict[RemoteGroup | RemoteAddressGroup, AddressSet] = {
            RemoteAddressGroup(name): AddressSet(group.prefixes) for name, group in self.address_groups.items()
        }
        sets |= {RemoteGroup(name): AddressSet() for name in self.security_groups}
        for port in self.ports.values():
            for prefix in member_addresses(port):
                for name in port.security_groups:
                    sets[RemoteGroup(name)].add(prefix)
        return sets


def member_addresses(port: Port) -> Iterator[Prefix]:
    """What a port contributes to the groups it is in."""
    yield from port.fixed_ips
    for pair in port.pairs:
        if pair.prefix.length:
            yield pair.prefix
