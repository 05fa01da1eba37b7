"""Small changes of a policy of a known shape, and of what is plugged: each is one that happens every day."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from ovsfw.compiler import Bindings
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Direction, Policy, Port, PortRange, RemoteGroup, Rule, SecurityGroup
from ovsfw.policy.paged import Paged

TCP = 6

Situation = tuple[Policy, Bindings]
# From a situation, and a number that makes each time a little different: before and after.
Change = Callable[[Situation, int], tuple[Situation, Situation]]


def strangers(base: Policy, count: int, first: int = 0) -> Iterator[Port]:
    """More members elsewhere, with an address of each family."""
    member = next(port for name, port in base.ports.items() if name.startswith("remote-"))
    for number in range(first, first + count):
        addresses = (
            Prefix(Family.IPV4, 0x0AFE0000 | number, 32),
            Prefix(Family.IPV6, 0x20010DB800FE << 80 | number, 128),
        )
        yield dataclasses.replace(member, id=f"stranger-{number}", mac=0x5254FE000000 | number, fixed_ips=addresses)


def with_ports(base: Policy, *ports: Port) -> Policy:
    """With some more ports, or others with these ids."""
    paged = base.ports if isinstance(base.ports, Paged) else Paged(base.ports)
    return dataclasses.replace(base, ports=paged.changed({port.id: port for port in ports}))


def _with_group(base: Policy, group: SecurityGroup) -> Policy:
    return dataclasses.replace(base, security_groups={**base.security_groups, group.id: group})


def _member_joins(now: Situation, number: int) -> tuple[Situation, Situation]:
    base, here = now
    return now, (with_ports(base, *strangers(base, 1, number)), here)


def _rule_added(now: Situation, number: int) -> tuple[Situation, Situation]:
    base, here = now
    group = base.security_groups["group-0"]
    rule = Rule(f"added-{number}", Direction.INGRESS, Family.IPV4, TCP, PortRange(40000 + number, 40000 + number))
    return now, (_with_group(base, dataclasses.replace(group, rules=(*group.rules, rule))), here)


def _rule_removed(now: Situation, number: int) -> tuple[Situation, Situation]:
    base, here = now
    group = base.security_groups[f"group-{number}"]
    return now, (_with_group(base, dataclasses.replace(group, rules=group.rules[1:])), here)


def _port_plugged(now: Situation, number: int) -> tuple[Situation, Situation]:
    base, here = now
    gone = len(here.endpoints) - 1 - number
    without = here.endpoints[:gone] + here.endpoints[gone + 1 :]
    return (base, dataclasses.replace(here, endpoints=without)), now


def _port_of_a_new_group_plugged(now: Situation, number: int) -> tuple[Situation, Situation]:
    """The first here with a group, whose only rule refers to a set that no rule here has referred to."""
    base, here = now
    port = base.ports[here.endpoints[number].port_id]
    inner = SecurityGroup("inner", rules=(Rule("inner-1", Direction.INGRESS, Family.IPV4),))
    members = (
        dataclasses.replace(stranger, security_groups=("inner",)) for stranger in strangers(base, 50, first=1000)
    )
    grown = with_ports(_with_group(base, inner), *members)
    without = dataclasses.replace(here, endpoints=here.endpoints[:number] + here.endpoints[number + 1 :])
    rule = Rule("fresh-1", Direction.INGRESS, Family.IPV4, TCP, PortRange(22, 22), remote=RemoteGroup("inner"))
    grown = _with_group(grown, SecurityGroup("fresh", rules=(rule,)))
    grown = with_ports(grown, dataclasses.replace(port, security_groups=("fresh",)))
    return (grown, without), (grown, here)


def _reverse(change: Change) -> Change:
    return lambda now, number: change(now, number)[::-1]


KINDS: dict[str, Change] = {
    "a member joins a group": _member_joins,
    "a member leaves it": _reverse(_member_joins),
    "a rule is added to a group": _rule_added,
    "a rule is removed from a group": _rule_removed,
    "a port is plugged": _port_plugged,
    "a port is unplugged": _reverse(_port_plugged),
    "a port is plugged whose group, and the set that its rule refers to, are new here": _port_of_a_new_group_plugged,
}
