"""What was used of a policy on this host, by the counters of its flows.  Pure.

The flows of a rule see the first packets of connections (with stateless groups every packet), so what they count are
new connections.  A rule belongs to a group and not to an endpoint: it counts for all endpoints of this host that have
the group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ovsfw.compiler.identity import Drop, Identity
from ovsfw.compiler.pipeline import OWNER, TABLE_NAMES, read_cookie
from ovsfw.compiler.recording import DROPS
from ovsfw.openflow.ages import LONGEST_IDLE, Age
from ovsfw.policy.model import Policy, Rule


@dataclass(frozen=True, slots=True)
class Usage:
    """The flows of a rule together.

    `hits` are packets that it let in or refused, the first ones of their connections; `since` how long it has been
    counted and `idle` how long ago it was hit last, in seconds, None where it was never, or where nobody knows.
    `flows` 0: it has none here, because no endpoint has its group, or another rule says the same.
    """

    rule: Rule
    hits: int = 0
    bytes: int = 0
    since: int = 0
    idle: int | None = None
    flows: int = 0


def usages(policy: Policy, identity: Identity, ages: Iterable[Age]) -> list[Usage]:
    """The use of every rule, in the order of the policy."""
    by_rule: dict[str, list[Age]] = defaultdict(list)
    for age in ages:
        meaning = identity.meaning(age.table, age.cookie)
        if meaning is not None and meaning.rule is not None:
            by_rule[meaning.rule.id].append(age)
    return [_usage(rule, by_rule.get(rule.id, [])) for rule in policy.rules]


def _usage(rule: Rule, found: list[Age]) -> Usage:
    if not found:
        return Usage(rule)
    return Usage(
        rule,
        sum(age.packets for age in found),
        sum(age.bytes for age in found),
        min(age.since for age in found),
        min((age.idle for age in found if age.idle is not None), default=None),
        len(found),
    )


class Unused(Enum):
    """Whether a rule was unused for some time, as far as the switch knows."""

    UNUSED = "unused"
    USED = "used"
    TOO_YOUNG = "its flows are younger than that"
    NOT_KNOWN = "hit before, but Open vSwitch remembers for 18 hours only when"
    NOT_HERE = "it has no flows here"


def unused(usage: Usage, seconds: int) -> Unused:
    """Judge one rule; a flow that is younger says nothing, unless it was hit."""
    if not usage.flows:
        return Unused.NOT_HERE
    if usage.hits:
        if usage.idle is None:
            return Unused.NOT_KNOWN
        if usage.idle < min(seconds, LONGEST_IDLE):
            return Unused.USED
        return Unused.NOT_KNOWN if seconds > LONGEST_IDLE else Unused.UNUSED
    return Unused.UNUSED if usage.since >= seconds else Unused.TOO_YOUNG


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one kind of flow has dropped; `idle` as in Usage."""

    drop: Drop
    table: str
    packets: int
    bytes: int
    idle: int | None


def dropped(identity: Identity, ages: Iterable[Age]) -> list[Dropped]:
    """What was dropped on this host and why, the most first; kinds that never dropped are left out."""
    found: dict[tuple[Drop, str], list[Age]] = defaultdict(list)
    for age in ages:
        read = read_cookie(age.cookie)
        drop = identity.drop(age.table, age.cookie)
        if age.packets and drop and read and read[0] in DROPS:
            found[drop, TABLE_NAMES.get(age.table, str(age.table))].append(age)
    lines = [
        Dropped(
            drop,
            table,
            sum(age.packets for age in group),
            sum(age.bytes for age in group),
            min((age.idle for age in group if age.idle is not None), default=None),
        )
        for (drop, table), group in found.items()
    ]
    return sorted(lines, key=lambda line: (-line.packets, line.table))


def is_installed(ages: Iterable[Age]) -> bool:
    """Whether there is any flow of ovsfw at all."""
    return any(age.cookie >> 48 == OWNER for age in ages)
