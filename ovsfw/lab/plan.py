"""What a lab looks like: a policy turned into machines with addresses.  Pure.

Naming, for a lab NAME:

    ovsfw-NAME.switch     namespace of the two processes of Open vSwitch and the bridge br-int
    ovsfw-NAME.MACHINE    namespace of one machine; its one device is eth0
    MACHINE               the switch's end of that machine's veth

MACHINE is a port's id where that is a good device name, else the port's name, else vm1, vm2, ...  Machines named
outside (outside-2, ... for the second network and on) are on a switch port without iface-id: they stand for the rest of
the world, are everybody's default gateway, and own one address out of every prefix that a rule speaks of.

Every network has a VLAN: 0 (no tag) for the network without a name, else 1, 2, ... in the order of the network ids.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ovsfw.errors import ConfigError
from ovsfw.policy.addresses import Family, Prefix, format_mac
from ovsfw.policy.model import Policy, Port, RemoteAddressGroup

SUBNET_BITS = {Family.IPV4: 24, Family.IPV6: 64}
OUTSIDE = "outside"
MAX_OUTSIDE = 8  # addresses of the outside, besides the gateways; every one costs probes with every port
# A device name has at most 15 characters; these are taken.
_DEVICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}")
_TAKEN = frozenset({"lo", "all", "default", "switch", "br-int", "ovs-netdev"})
# The last addresses of a subnet are where gateways are looked for: a port rarely has one of them.
_GATEWAY_OFFSETS = {Family.IPV4: range(254, 0, -1), Family.IPV6: range(0xFFFE, 0, -1)}


@dataclass(frozen=True, slots=True)
class Machine:
    """A namespace on the bridge.  `addresses` and `routes` (to reach without a gateway) have prefix lengths."""

    name: str
    mac: str
    vlan: int
    port_id: str | None
    addresses: tuple[str, ...]
    routes: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Party:
    """Who sends and receives probes: a port of the policy, or an address outside it.  At most one address a family."""

    name: str
    machine: str
    vlan: int
    port_id: str | None
    addresses: tuple[str, ...]

    def address(self, family: Family) -> Prefix | None:
        """Its address of a family, if it has one."""
        parsed = (Prefix.parse(address) for address in self.addresses)
        return next((address for address in parsed if address.family is family), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a lab."""

    machines: tuple[Machine, ...]
    parties: tuple[Party, ...]


def make_plan(policy: Policy) -> Plan:
    """Give every port of a policy a machine, and every network an outside.

    Raises ConfigError when a network has no address left for the outside.
    """
    labels = _labels(policy)
    machines: list[Machine] = []
    parties: list[Party] = []
    networks = sorted({port.network_id for port in policy.ports.values()}, key=lambda name: (name is not None, name))
    for number, network in enumerate(networks, 1):
        ports = [port for port in policy.ports.values() if port.network_id == network]
        vlan = 0 if network is None else number
        suffix = "" if number == 1 else f"-{number}"
        outside, others = _outside(policy, ports, vlan, suffix)
        machines += [*(_machine(port, ports, labels[port.id], outside) for port in ports), outside]
        parties += [*(_party(port, labels[port.id], vlan) for port in ports), *others]
    return Plan(tuple(machines), tuple(parties))


def _labels(policy: Policy) -> dict[str, str]:
    """The machine's name of every port."""
    labels: dict[str, str] = {}
    used = set(_TAKEN)
    for number, port in enumerate(policy.ports.values(), 1):
        wishes = (port.id, port.name, f"vm{number}", f"ovsfw-vm{number}")
        good = (wish for wish in wishes if _DEVICE_NAME.fullmatch(wish) and not wish.startswith(OUTSIDE))
        labels[port.id] = next(wish for wish in good if wish not in used)
        used.add(labels[port.id])
    return labels


def _machine(port: Port, ports: list[Port], label: str, outside: Machine) -> Machine:
    addresses = tuple(f"{address}/{SUBNET_BITS[address.family]}" for address in port.fixed_ips)
    own = {subnet(address) for address in port.fixed_ips}
    families = {address.family for address in port.fixed_ips}
    on_link = [prefix for prefix in subnets(ports) if prefix not in own and prefix.family in families]
    gateways = [Prefix.parse(address.split("/")[0]) for address in outside.addresses if not is_lone(address)]
    return Machine(
        name=label,
        mac=format_mac(port.mac),
        vlan=outside.vlan,
        port_id=port.id,
        addresses=addresses,
        routes=tuple(str(prefix) for prefix in on_link),
        gateways=tuple(str(gateway) for gateway in gateways if gateway.family in families),
    )


def is_lone(address: str) -> bool:
    """Whether an address with a prefix length stands for itself only."""
    return Prefix.parse(address).is_host


def _party(port: Port, label: str, vlan: int) -> Party:
    return Party(label, label, vlan, port.id, _one_per_family(port.fixed_ips))


def _one_per_family(addresses: tuple[Prefix, ...] | list[Prefix]) -> tuple[str, ...]:
    firsts: dict[Family, Prefix] = {}
    for address in addresses:
        firsts.setdefault(address.family, address)
    return tuple(str(firsts[family]) for family in sorted(firsts))


def subnet(address: Prefix) -> Prefix:
    """The subnet that the lab supposes an address to be in."""
    return Prefix.parse(f"{address}/{SUBNET_BITS[address.family]}")


def subnets(ports: list[Port]) -> list[Prefix]:
    """The subnets of a network, sorted."""
    return sorted({subnet(address) for port in ports for address in port.fixed_ips})


def _outside(policy: Policy, ports: list[Port], vlan: int, suffix: str) -> tuple[Machine, list[Party]]:
    """The rest of the world as a network sees it: one machine, and a party for each name it has addresses under."""
    taken = {claim.prefix for port in policy.ports.values() for claim in port.claims if claim.prefix.is_host}
    firsts: dict[Family, Prefix] = {}
    for prefix in subnets(ports):
        firsts.setdefault(prefix.family, prefix)
    gateways = [_gateway(prefix, taken) for prefix in firsts.values()]
    name = f"{OUTSIDE}{suffix}"
    parties = [Party(name, name, vlan, None, _one_per_family(gateways))]
    far: dict[str, list[Prefix]] = {}
    beyond = ((name, prefix) for name, prefix in _far_prefixes(policy) if not any(map(prefix.contains, gateways)))
    for label, prefix in beyond:
        address = _first_host(prefix, taken.union(gateways))
        if address and address.family in firsts and (label in far or len(far) < MAX_OUTSIDE):
            far.setdefault(label, []).append(address)
    parties += [Party(f"{label}{suffix}", name, vlan, None, _one_per_family(found)) for label, found in far.items()]
    addresses = [f"{address}/{SUBNET_BITS[address.family]}" for address in gateways]
    lone = sorted({Prefix.parse(address) for party in parties[1:] for address in party.addresses})
    addresses += [f"{address}/{address.family.bits}" for address in lone]
    routes = tuple(str(prefix) for prefix in subnets(ports) if prefix not in firsts.values())
    mac = f"02:00:00:00:{vlan >> 8:02x}:{vlan & 0xFF:02x}"
    return Machine(name, mac, vlan, None, tuple(addresses), routes), parties


def _gateway(prefix: Prefix, taken: set[Prefix]) -> Prefix:
    family = prefix.family
    for offset in _GATEWAY_OFFSETS[family]:
        address = Prefix(family, prefix.value + offset, family.bits)
        if address not in taken:
            return address
    raise ConfigError(f"{prefix}: the lab needs one free address there, for the machine outside the policy")


def _far_prefixes(policy: Policy) -> Iterator[tuple[str, Prefix]]:
    """Every prefix that a rule speaks of, with a name for it."""
    for group in policy.security_groups.values():
        for rule in group.rules:
            if isinstance(rule.remote, Prefix):
                yield str(rule.remote), rule.remote
            elif isinstance(rule.remote, RemoteAddressGroup):
                for prefix in policy.address_groups[rule.remote.id].prefixes:
                    yield policy.address_groups[rule.remote.id].name or rule.remote.id, prefix


def _first_host(prefix: Prefix, taken: set[Prefix]) -> Prefix | None:
    """An address of a prefix that a machine can have; None if there is none, or if it is no better than any other."""
    if not prefix.length:
        return None
    first = 0 if prefix.is_host else 1
    last = min(256, 1 << (prefix.family.bits - prefix.length))
    hosts = (Prefix(prefix.family, prefix.value + offset, prefix.family.bits) for offset in range(first, last))
    return next((host for host in hosts if host not in taken and _is_usable(host)), None)


def _is_usable(host: Prefix) -> bool:
    address = ipaddress.ip_address(str(host))
    special = (
        address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local,
        host.family is Family.IPV4 and address.is_reserved,
    )
    return not any(special)
