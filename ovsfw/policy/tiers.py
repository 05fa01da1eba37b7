"""What tiers may cost, and which of them are surely not meant as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ovsfw.policy.model import Policy, Tier

# Each rule of a port's tiers is a lookup of its own; Open vSwitch gives up on a packet after 4,096 of them
# (MAX_RESUBMITS), and both sides of a connection, or a broadcast, may share that.
MAX_TIERS = 100
MAX_RULES = 500


def too_long(policy: Policy) -> Iterator[str]:
    """What Open vSwitch could not take."""
    if len(policy.tiers) > MAX_TIERS:
        yield f"{len(policy.tiers)} tiers; there can be {MAX_TIERS}"
    tried: set[tuple[str, ...]] = set()
    for port in policy.ports.values():
        if not port.port_security or port.security_groups in tried:
            continue
        tried.add(port.security_groups)
        rules = (rule for tier in policy.tiers if tier.concerns(port.security_groups) for rule in tier.rules)
        counts = Counter((rule.direction.value, rule.family.ethertype) for rule in rules)
        for (direction, ethertype), count in sorted(counts.items()):
            if count > MAX_RULES:
                yield (
                    f"port {port.id} has {count} {ethertype} {direction} rules in its tiers; there can be {MAX_RULES} "
                    "(use address groups, or applies_to)"
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
