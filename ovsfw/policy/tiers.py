"""What tiers may cost, and which of them are surely not meant as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from ovsfw.policy.addresses import Family
from ovsfw.policy.helpers import helped
from ovsfw.policy.model import Action, Direction, Policy, Port, Tier

# Open vSwitch gives up on a packet after 4,096 lookups (MAX_RESUBMITS), which both sides of a connection, or the sender
# and the receivers of a broadcast, may have to share.  A tier and each of its rules is one, a group is two.
MAX_LOOKUPS = 1150
LOOKUPS_PER_GROUP = 2


def size(tier: Tier, direction: Direction, family: Family) -> int:
    """How many lookups it costs to ask a tier about a packet."""
    return 1 + sum(1 for rule in tier.rules if rule.direction is direction and rule.family is family)


def tiers_of(policy: Policy, ports: Iterable[Port]) -> list[Tier]:
    """The tiers that some ports have, in their order."""
    lists = {port.security_groups for port in ports if port.port_security}
    return [tier for tier in policy.tiers if any(map(tier.concerns, lists))]


def rejects(policy: Policy) -> bool:
    """Whether any sender may have to be told that its packet was rejected."""
    return any(rule.action is Action.REJECT for tier in policy.tiers for rule in tier.rules)


def too_long(policy: Policy, ports: Iterable[Port]) -> Iterator[str]:
    """Of some ports those whose rules are more than Open vSwitch could take; one of all with the same groups."""
    if not policy.tiers:
        return
    of_port = {port.security_groups: port for port in ports if port.port_security}
    for direction, family in product(Direction, Family):
        sizes = [(tier, size(tier, direction, family)) for tier in policy.tiers]
        for groups, port in of_port.items():
            cost = [size_of_tier for tier, size_of_tier in sizes if tier.concerns(groups)]
            asked = len(groups) + sum(1 for rule in helped(policy, groups) if rule.direction is direction)
            if sum(cost) + LOOKUPS_PER_GROUP * asked > MAX_LOOKUPS:
                yield (
                    f"port {port.id} has {len(cost):,} tiers with {sum(cost) - len(cost):,} {family.ethertype} "
                    f"{direction.value} rules; Open vSwitch can take {MAX_LOOKUPS:,} tiers and rules of them, "
                    f"less {LOOKUPS_PER_GROUP} for each security group of the port, and each rule with a helper"
                )


def warnings(policy: Policy) -> Iterator[str]:
    """Tiers that do nothing, or less than they seem to; one sentence each, in the order of the tiers."""
    used = {group for port in policy.ports.values() for group in port.security_groups}
    for tier in policy.tiers:
        if not tier.rules:
            yield f"tier {tier.id} does nothing: it has no rules"
        yield from _of_scope(tier, used)


def _of_scope(tier: Tier, used: set[str]) -> Iterator[str]:
    if tier.applies_to is None:
        return
    if not tier.applies_to:
        yield f"tier {tier.id} does nothing: applies_to is empty; leave it out to mean every port"
    for group in tier.applies_to:
        if group not in used:
            yield f"tier {tier.id} applies to the security group {group}, which no port has"
