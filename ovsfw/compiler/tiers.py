"""Tiers: each is a list of calls, compiled once; each of its rules is a subroutine, as all rules of a group are one.

So the order of a tier stands in one flow for each direction and IP version, and its rules are as independent of each
other as groups are: they share the flows of remote sets, and a rule that comes or goes changes its own flows and that
list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.groups import RULE_TABLE, VERDICT, logged, rules_flows
from ovsfw.compiler.packets import IP_OF, load, to
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.openflow.action import Action, Load, Place
from ovsfw.openflow.flow import Entry
from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Direction, Policy, Position, Tier
from ovsfw.policy.tiers import LOOKUPS_PER_GROUP, size

TIERS = {Direction.EGRESS: p.EGRESS_TIERS, Direction.INGRESS: p.INGRESS_TIERS}
RULES = {Direction.EGRESS: p.EGRESS_RULES, Direction.INGRESS: p.INGRESS_RULES}


class Helped(NamedTuple):
    """A rule with a helper, by its hint."""

    hint: int
    direction: Direction
    family: Family


class Course(NamedTuple):
    """Whose rules an endpoint's packets are judged by, in this order; all by their numbers.

    Rules with a helper are asked before all others that allow the same: who speaks is remembered, and its helper with
    it.
    """

    before: tuple[int, ...] = ()
    helped: tuple[Helped, ...] = ()
    groups: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


class Numbers(NamedTuple):
    """What stands for security groups and tiers, by their ids, and the rules with a helper of groups that have any."""

    groups: Mapping[str, int]
    tiers: Mapping[str, int]
    helped: Mapping[str, tuple[Helped, ...]]


def course_of(policy: Policy, names: tuple[str, ...], numbers: Numbers) -> Course:
    """The course of a filtered port with these groups."""
    before, after = (
        tuple(numbers.tiers[tier.id] for tier in policy.tiers_for(names, position))
        for position in (Position.BEFORE, Position.AFTER)
    )
    alone = sorted(rule for name in names for rule in numbers.helped.get(name, ()))
    return Course(before, tuple(alone), tuple(numbers.groups[name] for name in sorted(names)), after)


def ask(course: Course, direction: Direction) -> Iterator[Action]:
    """Ask all of them in turn; whoever comes after a rule that has spoken says nothing (see `standing`).

    Only a pass is forgotten again: where the groups begin, and at every tier after them.
    """
    tiers, again = TIERS[direction], Load(Place(VERDICT[direction], p.LEFT_TO_GROUPS.bit_length() - 1, 1), 0)
    for number in course.before:
        yield from (load(p.GROUP, number), to(tiers))
    if course.before:
        yield again
    alone = (rule.hint for rule in course.helped if rule.direction is direction)
    for number in (*alone, *course.groups):
        yield from (load(p.GROUP, number), to(RULES[direction]))
    for number in course.after:
        yield from (load(p.GROUP, number), to(tiers), again)


def cost_of(course: Course, sizes: Mapping[int, int]) -> int:
    """How many lookups `ask` can cost; `sizes` has the `tier_size` of each tier by its number."""
    asked = len(course.helped) + len(course.groups)
    return LOOKUPS_PER_GROUP * asked + sum(sizes[number] for number in (*course.before, *course.after))


def tier_size(tier: Tier, direction: Direction) -> int:
    """How many lookups it can cost to ask a tier, as a power of 2: what leans on it changes seldom."""
    return 1 << (max(size(tier, direction, family) for family in Family) - 1).bit_length()


def tier_flows(
    tier: Tier, number: int, sets: Mapping[str, int], hints: Mapping[str, int], *, logs: bool = False
) -> Iterator[Entry]:
    """A tier.  `sets` numbers the remote sets, `hints` the rules; `logs`: what is to be logged is."""
    log = logged(tier.rules) if logs else frozenset()
    why = cookie(Reason.TIER, number)
    for (direction, family), table in RULE_TABLE.items():
        rules = [rule for rule in tier.rules if rule.direction is direction and rule.family is family]
        calls = (action for rule in rules for action in (load(p.GROUP, hints[rule.id]), to(table)))
        if rules:
            match = (p.GROUP(number), IP_OF[family])
            yield TIERS[direction].flow(Priority.FIRST, match, tuple(calls), why)
        for rule in rules:
            yield from rules_flows((rule,), hints[rule.id], sets, hints, log)
