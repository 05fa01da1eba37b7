"""A switch in memory: bundles apply whole or not at all.  It knows keys and values, not packets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ovsfw.compiler.pipeline import BLOCKED
from ovsfw.errors import SwitchError
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import Entry, Flow, Key, Value
from ovsfw.openflow.packet import answer_of
from ovsfw.openflow.port import NO_FLOOD, SwitchPort
from ovsfw.openflow.tracked import Tracked


class FakeSwitch:
    """`fail_next` makes the next bundle fail: "before" it is applied, or "after", when only the answer is lost.

    It is stricter than a real one: what is deleted or changed must be there as it was last seen.  An add replaces what
    has its key, as in a real one.  `log` is what was done to it, in order.
    """

    def __init__(self, flows: Iterable[Flow] = (), ofports: Iterable[int] = range(1, 100)) -> None:
        self.flows: dict[Key, Value] = dict(flows)
        self.flagged: dict[int, bool] = dict.fromkeys(ofports, False)
        self.fragments = False
        self.limits: dict[int, int] = {}
        self.fail_next = ""
        self.log: list[str] = []
        self.bundles = 0
        self.dumps = 0
        self.tracked: list[Tracked] = []
        self.reads = 0

    async def dump_flows(self) -> Iterable[Entry]:
        self.dumps += 1
        return list(self.flows.items())

    async def ports(self) -> Mapping[int, SwitchPort]:
        return {
            ofport: SwitchPort(ofport, f"p{ofport}", "", NO_FLOOD if on else 0) for ofport, on in self.flagged.items()
        }

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        self.log.append(f"{'close' if on else 'open'} {sorted(ofports)}")
        self.flagged.update({ofport: on for ofport in ofports if ofport in self.flagged})

    async def forget_macs(self) -> None:
        self.log.append("forget")

    async def shows_fragment_ports(self) -> bool:
        return self.fragments

    async def show_fragment_ports(self, *, on: bool) -> None:
        self.log.append(f"fragments {on}")
        self.fragments = on

    async def connection_limits(self) -> Mapping[int, int]:
        return dict(self.limits)

    async def limit_connections(self, limits: Mapping[int, int | None]) -> None:
        self.log.append(f"limits {dict(limits)}")
        merged = {**self.limits, **limits}
        self.limits = {zone: limit for zone, limit in merged.items() if limit is not None}

    async def connections(self, zones: Collection[int]) -> list[Tracked]:
        self.reads += 1
        return [entry for entry in self.tracked if entry.zone in zones]

    async def remark(self, entries: Collection[Tracked], *, blocked: bool) -> None:
        """As a real one: what is gone is skipped, and so is a protocol of which no packet can be made up."""
        for entry in entries:
            if entry in self.tracked and answer_of(entry.key):
                mark = entry.mark | BLOCKED if blocked else entry.mark & ~BLOCKED
                self.tracked[self.tracked.index(entry)] = entry._replace(mark=mark)
        if entries:
            self.log.append(f"{'block' if blocked else 'revive'} {len(entries)}")

    async def take_over(self, entries: Collection[Tracked]) -> None:
        """As a real one: who has a mark keeps it."""
        for entry in entries:
            bare = entry._replace(mark=0, label=0)
            if bare in self.tracked and answer_of(entry.key):
                self.tracked[self.tracked.index(bare)] = entry
        if entries:
            self.log.append(f"take over {len(entries)}")

    async def forget_connections(self, entries: Collection[Tracked]) -> None:
        """As a real one: ICMP stays."""
        gone = {(entry.key, entry.zone) for entry in entries if entry.key.protocol not in (1, 58)}
        self.tracked = [entry for entry in self.tracked if (entry.key, entry.zone) not in gone]
        if entries:
            self.log.append(f"forget {len(entries)} connections")

    async def settled(self) -> None:
        self.log.append("settled")

    async def apply(self, change: Diff) -> None:
        failing, self.fail_next = self.fail_next, ""
        if failing == "before":
            raise SwitchError("refused")
        self.log.append("bundle")
        self.bundles += 1
        for key, value in (*change.deletes, *(old for old, _ in change.changes)):
            assert self.flows.pop(key) == value
        for key, value in (*change.adds, *(new for _, new in change.changes)):
            self.flows[key] = value
        if failing == "after":
            raise SwitchError("no answer")
