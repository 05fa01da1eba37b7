"""The policy: ports, security groups, tiers, rules and address groups, as plain frozen values.

The shapes follow the Neutron API (https://docs.openstack.org/api-ref/network/v2/#security-groups-security-groups).
A `Policy` is valid by construction only when it comes from `document` or another translator: those refuse what is
wrong; nothing below them checks again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

import netaddr

MAX_GROUPS = 500
"""Of one port.  Open vSwitch gives up on a packet after 4,096 resubmits, and each group takes some."""


class Direction(str, Enum):
    """Seen from the endpoint: ingress is towards it, egress is from it (Neutron's sense)."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Family(IntEnum):
    """An ethertype of the Neutron API, as an IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def bits(self) -> int:
        """Width of an address."""
        return 32 if self is Family.IPV4 else 128

    @property
    def ethertype(self) -> str:
        """The Neutron API's word: IPv4 or IPv6."""
        return f"IPv{int(self)}"


class Prefix(NamedTuple):
    """An address or a prefix; `value` has no bits below `length`."""

    family: Family
    value: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `10.0.0.1`, `10.0.0.0/24`, `2001:db8::/64`; bits below the prefix length are cleared, as Neutron does.

        Raises ValueError when the text is no address or prefix.
        """
        try:
            network = netaddr.IPNetwork(text)
        except (netaddr.AddrFormatError, ValueError) as error:
            raise ValueError(f"{text!r} is not an IP address or prefix") from error
        return cls(Family(network.version), int(network.network), network.prefixlen)

    @property
    def is_host(self) -> bool:
        """Exactly one address."""
        return self.length == self.family.bits

    @property
    def mask(self) -> int:
        """The netmask as an integer."""
        bits = self.family.bits
        return ((1 << self.length) - 1) << (bits - self.length)

    def contains(self, other: Prefix) -> bool:
        """Whether every address of `other` is in this prefix.

        >>> Prefix.parse("10.0.0.0/8").contains(Prefix.parse("10.1.2.3"))
        True
        """
        return self.family == other.family and self.length <= other.length and (other.value & self.mask) == self.value

    def __str__(self) -> str:
        """`10.0.0.1` for one address, `10.0.0.0/24` for more."""
        address = str(netaddr.IPAddress(self.value, 4 if self.family is Family.IPV4 else 6))
        return address if self.is_host else f"{address}/{self.length}"


LINK_LOCAL = Prefix(Family.IPV6, 0xFE80 << 112, 10)


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
    stand with ICMP (1) in IPv4 and ICMPv6 (58) in IPv6.
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


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A named list of allow rules; what no rule allows is dropped.

    `log` is for all its rules, and for what its ports drop because no rule accepts it.
    """

    id: str
    name: str = ""
    stateful: bool = True
    rules: tuple[Rule, ...] = ()
    log: Log | None = None


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


class AddressSet:
    """Prefixes, to be asked whether they contain an address: one look-up for each length there is."""

    __slots__ = ("_by_length",)

    def __init__(self, prefixes: Iterable[Prefix] = ()) -> None:
        self._by_length: dict[tuple[Family, int], set[int]] = {}
        for prefix in prefixes:
            self.add(prefix)

    def add(self, prefix: Prefix) -> None:
        """One more; one that is there already is fine."""
        self._by_length.setdefault((prefix.family, prefix.length), set()).add(prefix.value)

    def contains(self, other: Prefix) -> bool:
        """Whether one of the prefixes contains every address of `other`."""
        return any(
            family is other.family and length <= other.length and other.value >> shift << shift in values
            for (family, length), values in self._by_length.items()
            for shift in (family.bits - length,)
        )


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


_MAC = re.compile(r"([0-9a-f]{2}([:-])([0-9a-f]{2}\2){4}[0-9a-f]{2})|([0-9a-f]{4}\.){2}[0-9a-f]{4}", re.IGNORECASE)


def parse_mac(text: str) -> int:
    """Read `52:54:00:00:00:01` (also with dashes, or Cisco's dots).  Raises ValueError for anything else, and for 0.

    Multicast addresses are refused too: no host may send from one (IEEE 802.3 section 3.2.3).
    """
    # netaddr also takes short forms, among them 52:54:00 for 00:52:00:54:00:00, which nobody means.
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address")
    mac = int(netaddr.EUI(text, version=48))
    if mac == 0 or mac >> 40 & 1:
        raise ValueError(f"{text!r} is a multicast or null MAC address; a port needs a unicast one")
    return mac


def format_mac(mac: int) -> str:
    """`52:54:00:00:00:01`.

    >>> format_mac(0x525400000001)
    '52:54:00:00:00:01'
    """
    return ":".join(f"{byte:02x}" for byte in mac.to_bytes(6, "big"))


def link_local(mac: int) -> Prefix:
    """The IPv6 link-local address that a MAC makes (RFC 4291, appendix A: modified EUI-64).

    >>> str(link_local(0x525400000001))
    'fe80::5054:ff:fe00:1'
    """
    return Prefix(Family.IPV6, int(netaddr.EUI(mac, version=48).ipv6_link_local()), 128)
