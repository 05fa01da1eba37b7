"""How many flows a policy costs on a host, and against what it may grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ovsfw.compiler import Program
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.groups import RULE_TABLE, services
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.compiler.remotes import Members, Place, Sets, referenced
from ovsfw.compiler.standing import standing_flows
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.model import Policy, Rule, SecurityGroup, Tier
from ovsfw.policy.tiers import tiers_of

# What packets of every kind come to without any rules; tests/ovs/test_masks.py tries.
STANDING_MASKS = 64
PORT_BITS = 16


@dataclass(frozen=True, slots=True)
class Stats:
    """What a program is made of.

    `rule_masks` counts, over the groups and tiers of endpoints here, one for each port mask of each rule; `addresses`,
    for each direction and IP version, the distinct addresses of the remote sets that those rules refer to.  `masks` is
    how many masks one sender can make the datapath cache.
    """

    endpoints: int
    rule_masks: int
    addresses: int
    standing: int
    flows: int
    by_table: dict[str, int]
    masks: int

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
    pages = Members().follow(policy)
    members: dict[Place, list[Prefix]] = {}
    for place, remotes in needed.items():
        wanted = Sets({remote_name(remote): 0 for remote in remotes})
        found = (item for page in pages[place[1]] for bucket in page for item in bucket.items())
        members[place] = [prefix for prefix, its_owners in found if wanted.of(its_owners)]
    rules = [rule for owner in owners for rule in owner.rules]
    by_table = Counter(TABLE_NAMES[key[0]] for key in program.flows)
    return Stats(
        endpoints=len(here),
        rule_masks=sum(1 for rule in rules for _ in services(rule)),
        addresses=sum(map(len, members.values())),
        standing=sum(1 for _ in standing_flows()),
        flows=len(program.flows),
        by_table={name: by_table[name] for name in TABLE_NAMES.values() if by_table[name]},
        masks=STANDING_MASKS + sum(_masks(place, rules, members.get(place, ())) for place in RULE_TABLE),
    )


def _masks(place: Place, rules: Iterable[Rule], members: Iterable[Prefix]) -> int:
    """How many different masks look-ups in the rules of one direction and IP version can come to.

    An address is compared as far as it takes to tell it from all that rules name, and so is a port: each can be as many
    lengths as it has bits (lib/classifier.c, trie_lookup()).  Without rules that name any, neither counts.
    """
    here = [rule for rule in rules if (rule.direction, rule.family) == place]
    lengths = [prefix.length for prefix in members]
    lengths += [rule.remote.length for rule in here if isinstance(rule.remote, Prefix)]
    kinds = {(rule.protocol, rule.ports is not None, rule.source_ports is not None) for rule in here}
    by_kind = ((1 + PORT_BITS * to_port) * (1 + PORT_BITS * from_port) for _, to_port, from_port in kinds)
    return (1 + max(lengths, default=0)) * (1 + sum(by_kind))
