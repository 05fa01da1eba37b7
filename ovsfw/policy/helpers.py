"""Helpers of conntrack: which rules may ask for one, and how many of them a port may have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ovsfw.policy import protocols
from ovsfw.policy.model import Helper, Policy, Port, Rule
from ovsfw.policy.verdict import TCP, UDP

MAX_HELPED = 64
"""Rules with a helper of one port.  Each is asked by itself, and so costs as many lookups as a group."""


class Service(NamedTuple):
    """Where a helper's control connections are by convention."""

    protocol: int
    port: int


SERVICES = {Helper.FTP: Service(TCP, 21), Helper.TFTP: Service(UDP, 69)}


def unfit(rule: Rule, *, stateful: bool) -> str:
    """Why a rule of a group cannot have the helper that it asks for, and what to do; empty where it can."""
    if rule.helper is None:
        return ""
    wanted, name = SERVICES[rule.helper], rule.helper.value
    if not stateful:
        return "its security group is stateless, and without connection tracking there are no helpers"
    if rule.protocol != wanted.protocol:
        return f"{name} needs the protocol {protocols.name(wanted.protocol)}"
    if rule.ports is None or rule.ports.first != rule.ports.last:
        return f"{name} needs exactly one port, as port_range_min and port_range_max (by convention {wanted.port})"
    return ""


def elsewhere(rule: Rule) -> str:
    """Why a rule's helper may not help, and where it does; empty where it does everywhere."""
    if rule.helper is None or rule.ports is None or rule.ports.first == SERVICES[rule.helper].port:
        return ""
    usual = SERVICES[rule.helper].port
    return f"with the userspace datapath, {rule.helper.value} is helped on port {usual} alone; elsewhere it has no data"


def helped(policy: Policy, groups: Iterable[str]) -> Iterator[Rule]:
    """The rules with a helper that a port with these groups has."""
    for name in groups:
        yield from policy.security_groups[name].helped


def too_many(policy: Policy, ports: Iterable[Port]) -> Iterator[str]:
    """Of some ports those that have more of them than Open vSwitch could take; one of all with the same groups."""
    if not any(group.helped for group in policy.security_groups.values()):
        return
    of_port = {port.security_groups: port for port in ports if port.port_security}
    for groups, port in of_port.items():
        count = sum(1 for _ in helped(policy, groups))
        if count > MAX_HELPED:
            yield f"port {port.id} has {count:,} rules with a helper; {MAX_HELPED} are allowed"
