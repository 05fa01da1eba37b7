"""The live connections of a bridge beside a policy: who talks to whom, by which rules, and may they still?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovsfw.apply import Bridge, Comparison, compare_with, opened
from ovsfw.compiler import Bindings
from ovsfw.compiler.identity import Identity
from ovsfw.connections import Fate, Judge, Judged
from ovsfw.openflow.tracked import Counters, Tracked
from ovsfw.policy.model import Policy, Rule
from ovsfw.policy.verdict import Connection


@dataclass(frozen=True, slots=True)
class Live:
    """One connection.

    `sender` and `receiver` are the ids of the ports of this host that the addresses belong to, "" for others;
    `admitted` are the rules that let it in, as far as they are in the policy; `deciding` those that decide now.
    """

    entry: Tracked
    fate: Fate
    connection: Connection
    sender: str
    receiver: str
    admitted: tuple[Rule, ...]
    deciding: tuple[Rule, ...]

    @property
    def blocked(self) -> bool:
        """Whether its packets are dropped now."""
        return self.fate in (Fate.BLOCKED, Fate.REVIVE)

    @property
    def counters(self) -> Counters | None:
        """What went in both directions, where it is counted."""
        entry = self.entry
        if entry.sent is None or entry.answered is None:
            return None
        return Counters(entry.sent.packets + entry.answered.packets, entry.sent.bytes + entry.answered.bytes)


@dataclass(frozen=True, slots=True)
class Connections:
    """Those that ovsfw let in or takes over, sorted, and how many more there are in these networks."""

    live: tuple[Live, ...]
    foreign: int

    def of(self, *fates: Fate) -> tuple[Live, ...]:
        """Those to which one of these things happens."""
        return tuple(one for one in self.live if one.fate in fates)


async def look(policy: Policy, db: str, bridge: str) -> Connections:
    """Read the connections of a bridge.  Raises SwitchError."""
    async with opened(db, bridge) as held:
        return await look_at(held, policy)


async def look_at(held: Bridge, policy: Policy) -> Connections:
    """The same on a bridge that is open."""
    judge = Judge(policy, held.bindings)
    entries = await held.channel.connections(judge.zones, counters=True)
    return told(judge, list(map(judge.judge, entries)), policy, held.bindings)


def told(judge: Judge, judged: Sequence[Judged], policy: Policy, bindings: Bindings) -> Connections:
    """Put names to numbers."""
    identity = Identity(policy, bindings)
    live = []
    for entry, fate, connection, verdict in judged:
        if connection is None or verdict is None:
            continue
        admission = identity.connection(entry.mark, entry.label)
        admitted = tuple(rule for rule in (admission.egress, admission.ingress) if rule)
        deciding = (*verdict.egress.rules[:1], *verdict.ingress.rules[:1])
        sender, receiver = (judge.owner(entry.zone, end) for end in (connection.source, connection.destination))
        live.append(Live(entry, fate, connection, sender, receiver, admitted, deciding))
    return Connections(tuple(sorted(live, key=lambda one: (one.entry.zone, one.entry.key))), len(judged) - len(live))


async def preview(policy: Policy, db: str, bridge: str) -> tuple[Comparison, Connections]:
    """What `apply` would change, and what that means for live connections.  Raises SwitchError."""
    async with opened(db, bridge) as held:
        return await compare_with(held, policy), await look_at(held, policy)
