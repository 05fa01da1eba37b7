"""How many flows a policy costs on a host, and against what it may grow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ovsfw.compiler import Program
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.groups import services
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.compiler.remotes import Members, Sets, referenced
from ovsfw.compiler.standing import standing_flows
from ovsfw.policy.model import Policy, SecurityGroup, Tier
from ovsfw.policy.tiers import tiers_of


@dataclass(frozen=True, slots=True)
class Stats:
    """What a program is made of.

    `rule_masks` counts, over the groups and tiers of endpoints here, one for each port mask of each rule; `addresses`,
    for each direction and IP version, the distinct addresses of the remote sets that those rules refer to.
    """

    endpoints: int
    rule_masks: int
    addresses: int
    standing: int
    flows: int
    by_table: dict[str, int]

    @property
    def budget(self) -> int:
        """What additive growth allows: 20 per endpoint, 2.2 per rule mask, 1.1 per address, and the standing frame."""
        return self.standing + round(20 * self.endpoints + 2.2 * self.rule_masks + 1.1 * self.addresses)

    @property
    def multiplied(self) -> int:
        """For comparison: endpoints times rule masks, what copying rules to every endpoint would cost at the least."""
        return self.endpoints * self.rule_masks


def stats(policy: Policy, bindings: Bindings, program: Program) -> Stats:
    """Count."""
    here = [policy.ports[bound.port_id] for bound in bindings.endpoints if bound.port_id in policy.ports]
    names = {name for port in here if port.port_security for name in port.security_groups}
    groups = [policy.security_groups[name] for name in names]
    owners: list[SecurityGroup | Tier] = [*groups, *tiers_of(policy, here)]
    needed = referenced(owners)
    buckets = [bucket for page in Members().follow(policy) for bucket in page]
    addresses = 0
    for (_, family), remotes in needed.items():
        wanted = Sets({remote_name(remote): 0 for remote in remotes})
        of_family = (found for bucket in buckets for prefix, found in bucket.items() if prefix.family is family)
        addresses += sum(1 for found in of_family if wanted.of(found))
    by_table = Counter(TABLE_NAMES[key[0]] for key in program.flows)
    return Stats(
        endpoints=len(here),
        rule_masks=sum(1 for owner in owners for rule in owner.rules for _ in services(rule)),
        addresses=addresses,
        standing=sum(1 for _ in standing_flows()),
        flows=len(program.flows),
        by_table={name: by_table[name] for name in TABLE_NAMES.values() if by_table[name]},
    )
