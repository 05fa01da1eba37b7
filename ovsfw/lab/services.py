"""Which probes show what a policy means: its services, the conversations over them, and what each should give.  Pure.

A service is TCP, UDP or ICMP echo; other protocols and ICMP types in rules are covered only as far as they let these
through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from ovsfw.lab.plan import Party, Plan
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Policy, PortRange, Rule
from ovsfw.policy.verdict import ANY_PORT, ICMP, ICMPV6, TCP, UDP, Connection, Verdict, verdict

_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp"}
_ECHO_TYPE = {Family.IPV4: 8, Family.IPV6: 128}
# Where a port is looked for that no rule names.
_UNNAMED = range(4444, 20000)


class Service(NamedTuple):
    """TCP or UDP with a destination port, or ICMP echo (in IPv6 that is ICMPv6) with port 0."""

    protocol: int
    port: int = 0

    @property
    def name(self) -> str:
        """The agent's word: tcp, udp or icmp."""
        return _NAMES[self.protocol]

    def __str__(self) -> str:
        """`tcp/80`, `icmp`."""
        return f"{self.name}/{self.port}" if self.port else self.name


class Probe(NamedTuple):
    """One party tries a service of another."""

    sender: Party
    receiver: Party
    service: Service
    source: Prefix
    destination: Prefix

    def __str__(self) -> str:
        """`web1 -> db tcp/5432 IPv4`."""
        return f"{self.sender.name} -> {self.receiver.name} {self.service} {self.source.family.ethertype}"

    def connection(self, source_port: int) -> Connection:
        """As the policy sees it."""
        family = self.source.family
        icmp = self.service.protocol == ICMP
        return Connection(
            sender=self.sender.port_id,
            receiver=self.receiver.port_id,
            source=self.source,
            destination=self.destination,
            protocol=(ICMP if family is Family.IPV4 else ICMPV6) if icmp else self.service.protocol,
            source_port=0 if icmp else source_port,
            destination_port=self.service.port,
            icmp_type=_ECHO_TYPE[family] if icmp else 0,
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the policy says of a probe: does its first packet arrive, and is the sender answered?"""

    verdict: Verdict
    arrives: bool
    answered: bool


def expect(policy: Policy, connection: Connection) -> Expectation:
    """What should come of a connection.

    A reply is judged only by endpoints that are filtered without conntrack; those judge every packet as if first.
    """
    forward, back = verdict(policy, connection), verdict(policy, connection.reversed())
    sender_lets_in = not _is_stateless(policy, connection.sender) or back.ingress.allowed
    receiver_lets_out = not _is_stateless(policy, connection.receiver) or back.egress.allowed
    return Expectation(forward, forward.allowed, forward.allowed and receiver_lets_out and sender_lets_in)


def _is_stateless(policy: Policy, port_id: str | None) -> bool:
    return port_id is not None and policy.is_stateless(policy.ports[port_id])


def services(policy: Policy) -> tuple[Service, ...]:
    """Both ends of every port range that a rule names, one TCP port that none names, and ICMP echo; sorted by name."""
    rules = [rule for group in policy.security_groups.values() for rule in group.rules]
    named = {service for rule in rules for service in _named(rule)}
    everyday = Service(TCP, next(port for port in _UNNAMED if not any(_covers(rule, port) for rule in rules)))
    return tuple(sorted({*named, everyday, Service(ICMP)}, key=lambda service: (service.name, service.port)))


def _ports(rule: Rule) -> PortRange | None:
    """The port range that a rule names, if it names one."""
    return None if rule.ports in ANY_PORT or rule.protocol not in (TCP, UDP) else rule.ports


def _named(rule: Rule) -> Iterator[Service]:
    if (ports := _ports(rule)) is not None and rule.protocol is not None:
        yield Service(rule.protocol, max(ports.first, 1))
        yield Service(rule.protocol, ports.last)


def _covers(rule: Rule, port: int) -> bool:
    ports = _ports(rule)
    return ports is not None and ports.first <= port <= ports.last


def probes(policy: Policy, plan: Plan, chosen: tuple[Service, ...]) -> tuple[Probe, ...]:
    """Every ordered pair of parties on one network x every service x every family that both have.

    Pairs of addresses outside the policy are left out, and ports that the policy no longer has.
    """
    parties = [party for party in plan.parties if party.port_id is None or party.port_id in policy.ports]
    return tuple(
        Probe(sender, receiver, service, source, destination)
        for sender, receiver in permutations(parties, 2)
        if sender.vlan == receiver.vlan and not (sender.port_id is None and receiver.port_id is None)
        for service in chosen
        for family in Family
        if (source := sender.address(family)) and (destination := receiver.address(family))
    )
