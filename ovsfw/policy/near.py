"""Which rules would almost have allowed a connection, and what about them differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from ovsfw.policy import protocols
from ovsfw.policy.model import Action, Direction, Policy, Port, Position, RemoteAddressGroup, RemoteGroup, Rule
from ovsfw.policy.verdict import UNMATCHABLE_PORTS, Connection, matches

MOST, SLACK = 3, 1


class Difference(NamedTuple):
    """One attribute of a rule that keeps it from allowing a connection; `weight` is how much of a change it is."""

    attribute: str
    text: str
    weight: int


class Miss(NamedTuple):
    """A rule that does not allow a connection, and all the reasons why."""

    rule: Rule
    differences: tuple[Difference, ...]

    @property
    def distance(self) -> int:
        """How much would have to change."""
        return sum(difference.weight for difference in self.differences)

    def __str__(self) -> str:
        """`its ports are 80-81, not 443; 10.9.0.4 is not in group bastion`."""
        return "; ".join(difference.text for difference in self.differences)


def nearest(policy: Policy, port: Port, connection: Connection, direction: Direction) -> tuple[Miss, ...]:
    """The rules that would have to change least to allow a connection of which no rule speaks, the best first.

    At most three, none much worse than the best; empty when the port has no allowing rule in that direction.
    """
    rules = _asked(policy, port, connection, direction)
    misses = [Miss(rule, tuple(_differences(policy, rule, connection))) for rule in rules]
    misses.sort(key=lambda miss: (miss.distance, miss.rule.id))
    return tuple(miss for miss in misses[:MOST] if miss.distance <= misses[0].distance + SLACK)


def _asked(policy: Policy, port: Port, connection: Connection, direction: Direction) -> Iterator[Rule]:
    """The rules that could allow it: of its groups, and of its tiers but for those behind a rule that passes it on."""
    for group in port.security_groups:
        yield from (rule for rule in policy.security_groups[group].rules if rule.direction is direction)
    for position in Position:
        for tier in policy.tiers_for(port.security_groups, position):
            rules = [rule for rule in tier.rules if rule.direction is direction]
            before = list(takewhile(lambda rule: not matches(policy, rule, connection), rules))
            yield from (rule for rule in before if rule.action is Action.ALLOW)
            if position is Position.BEFORE and len(before) < len(rules):
                break


def _differences(policy: Policy, rule: Rule, connection: Connection) -> Iterator[Difference]:
    if rule.family is not connection.family:
        yield Difference("ethertype", f"it is for {rule.family.ethertype}", 5)
    if rule.protocol not in (None, connection.protocol):
        said, wanted = protocols.name(rule.protocol), protocols.name(connection.protocol)
        yield Difference("protocol", f"its protocol is {said}, not {wanted}", 4)
    yield from _service_differences(policy, rule, connection)
    if not matches(policy, Rule("", rule.direction, connection.family, remote=rule.remote), connection):
        yield Difference("remote", _remote_text(policy, rule, connection), 2)


def _service_differences(policy: Policy, rule: Rule, connection: Connection) -> Iterator[Difference]:
    """What stands behind the protocol; nothing where the connection's protocol has no such thing."""
    anywhere = replace(rule, family=connection.family, protocol=connection.protocol, remote=None)
    if connection.protocol in protocols.WITH_PORTS:
        plain = replace(anywhere, icmp_type=None, icmp_code=None)
        for which, but, value in (
            ("ports", replace(plain, source_ports=None), connection.destination_port),
            ("source_ports", replace(plain, ports=None), connection.source_port),
        ):
            if not matches(policy, but, connection):
                yield Difference(which, _ports_text(rule, which, connection.protocol, value), 1)
        return
    for name, given, wanted in (
        ("type", rule.icmp_type, connection.icmp_type),
        ("code", rule.icmp_code, connection.icmp_code),
    ):
        if rule.protocol == connection.protocol and given not in (None, wanted):
            yield Difference(f"icmp_{name}", f"its ICMP {name} is {given}, not {wanted}", 1)


def _ports_text(rule: Rule, which: str, protocol: int, value: int) -> str:
    if protocol in UNMATCHABLE_PORTS:
        return f"Open vSwitch cannot match ports of {protocols.name(protocol)}"
    ports = rule.ports if which == "ports" else rule.source_ports
    noun = "port" if which == "ports" else "source port"
    return f"its {noun}{'s are' if '-' in str(ports) else ' is'} {ports}, not {value}"


def _remote_text(policy: Policy, rule: Rule, connection: Connection) -> str:
    far = connection.destination if rule.direction is Direction.EGRESS else connection.source
    match rule.remote:
        case RemoteGroup(group):
            return f"{far} is not in group {policy.security_groups[group].name or group}"
        case RemoteAddressGroup(group):
            return f"{far} is not in addresses {policy.address_groups[group].name or group}"
        case remote:
            return f"{far} is not in {remote}"
