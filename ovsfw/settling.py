"""Live connections follow the policy: after a change, those that it denies are cut, and those it allows again go on.

How it works, and what is true at which moment: docs/decisions/0008-live-connections-are-marked.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.identity import part
from ovsfw.compiler.pipeline import Reason, read_cookie
from ovsfw.connections import Due, Fate, Judge, Judged, due
from ovsfw.errors import SwitchError
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.tracked import Tracked, Tuple
from ovsfw.policy.model import Policy

logger = logging.getLogger(__name__)

# Seconds between two looks at whether the switch's caches have followed, and after a failure.
_PAUSE, _AFTER_FAILURE = 0.1, 1.0
# A packet that is made up may be lost, and taking over is not seen to later.
_TAKE_OVERS = 3
# Entries between two looks at other work.
_BATCH = 2000
# Flows of these reasons only ever let more through; of the second, when they replace one that does less.
_GIVING = frozenset(
    {
        Reason.CLASSIFY, Reason.SOURCE, Reason.ARP, Reason.NEIGHBOUR, Reason.DHCP_CLIENT, Reason.GROUPS,
        Reason.ESTABLISHED, Reason.FORWARD, Reason.FLOOD, Reason.RULE, Reason.MEMBER,
    }
)  # fmt: skip
_LISTING = frozenset({Reason.GROUPS, Reason.MEMBER})
_REACHING = frozenset({Reason.FORWARD, Reason.FLOOD})
# Flows by which an endpoint comes to send, or to send from another address.
_OPENING = frozenset({Reason.CLASSIFY, Reason.SOURCE})


class Tracker(Protocol):
    """What is needed of a switch; each raises SwitchError when it cannot be done."""

    async def connections(self, zones: Collection[int]) -> Sequence[Tracked]:
        """Every connection in some zones."""

    async def remark(self, entries: Collection[Tracked], *, blocked: bool) -> None:
        """Block connections, or let them live again."""

    async def take_over(self, entries: Collection[Tracked]) -> None:
        """Write the mark and label of each into the connection, unless it has a mark by now."""

    async def forget_connections(self, entries: Collection[Tracked]) -> None:
        """Forget connections, one by one."""

    async def settled(self) -> None:
        """Wait until no packet is dealt with by flows that are gone."""


class Totals(NamedTuple):
    """What has been done to connections."""

    cut: int = 0
    revived: int = 0
    forgotten: int = 0
    adopted: int = 0

    def plus(self, more: Due) -> Totals:
        """With some more."""
        done = map(len, (more.cut, more.revive, more.forget, more.adopt))
        return Totals(*(before + new for before, new in zip(self, done, strict=True)))

    def __str__(self) -> str:
        """`2 cut, 1 revived, 0 judged anew`, and `3 taken over` if there are any."""
        adopted = f", {self.adopted} taken over" if self.adopted else ""
        return f"{self.cut} cut, {self.revived} revived, {self.forgotten} judged anew{adopted}"


NOTHING = Totals()


class _Act(NamedTuple):
    """What was tried with which connection."""

    key: Tuple
    zone: int
    fate: Fate


class Settling:
    """Brings live connections in line with the newest policy.

    Its state is that policy's judge while there is work left, what has been tried for it, and whether anything was
    blocked when conntrack was last read.  `on_done` is told of everything that is done.
    """

    def __init__(self, switch: Tracker) -> None:
        self._switch = switch
        self._judge: Judge | None = None
        self._tried: Counter[_Act] = Counter()
        self._rounds: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        # Whether every connection that there was after the last change has been looked at.
        self._looked = asyncio.Event()
        self._looked.set()
        self._any_blocked = True
        self.totals = NOTHING
        self.on_done: Callable[[Due], None] = lambda _done: None

    @property
    def is_settled(self) -> bool:
        """Whether every live connection is one that the policy allows."""
        return self._judge is None

    async def looked(self) -> None:
        """Wait until what the newest policy denies is cut, but for what may begin until the switch's caches follow."""
        await self._looked.wait()

    async def prepare(self, judge: Judge, change: Diff) -> None:
        """Before a change opens an endpoint: what conntrack remembers of another by its ofport or address goes."""
        opened = set(_hints((*change.adds, *(new for _, new in change.changes)), _OPENING))
        zones = judge.zones_of(opened) if opened else None
        if not zones:
            return
        found = await self._due(judge, zones, opened)
        if any(flow.table == p.REMARK.number for flow in change.adds):
            found = Due(forget=(*found.cut, *found.forget))
        await self._do(found)

    def begin(self, policy: Policy, judge: Judge, change: Diff, *, in_doubt: bool) -> None:
        """A change has been made: there is work, unless it only gave and nothing is blocked."""
        if in_doubt or self._judge or (change and (self._any_blocked or not only_gives(policy, change))):
            self._judge = judge
            self._looked.clear()
            self._tried.clear()
            self._drop_rounds()
            self._begun.set()

    async def settle(self) -> float | None:
        """Do what can be done now; the seconds until the next call, None when all is done.  Raises SwitchError."""
        judge = self._judge
        if judge is None:
            return None
        if self._rounds is not None:
            if not self._rounds.done():
                return _PAUSE
            self._rounds.result()
        if await self._look(judge) or self._judge is not judge:
            return 0.0
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._switch.settled())
            return _PAUSE
        self._drop_rounds()
        self._judge = None
        return None

    async def _look(self, judge: Judge) -> Due:
        """Do what is due now; what that was."""
        found = self._second_try(await self._due(judge, judge.zones))
        if found and self._judge is judge:
            await self._do(found)
        if self._judge is judge:
            self._looked.set()
        return found

    async def finish(self) -> Totals:
        """All of it; what was done.  Takes a second or two, most of it waiting.  Raises SwitchError."""
        try:
            pause: float | None = 0.0
            while pause is not None:
                await asyncio.sleep(pause)
                pause = await self.settle()
        finally:
            self._drop_rounds()
        return self.totals

    async def run(self) -> None:
        """Do the work whenever there is some, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            try:
                await self.finish()
            except SwitchError as error:
                logger.warning("live connections could not be brought in line, trying again: %s", error)
                await self._again()
            except Exception:
                # A bug must not leave connections open for good that the policy denies.
                logger.exception("live connections could not be brought in line, trying again")
                await self._again()

    async def _again(self) -> None:
        self._begun.set()
        await asyncio.sleep(_AFTER_FAILURE)

    async def _due(self, judge: Judge, zones: Collection[int], opened: Collection[int] = ()) -> Due:
        """What must happen to the connections in some zones, or to those that concern endpoints being opened."""
        entries = await self._switch.connections(zones)
        judged: list[Judged] = []
        for at in range(0, len(entries), _BATCH):
            judged += judge.all(entries[at : at + _BATCH])
            await asyncio.sleep(0)
        if opened:
            wanted = (one for one in judged if one.fate is Fate.FORGET or _names(one.entry, opened))
            return due(one for one in wanted if one.fate not in (Fate.REVIVE, Fate.ADOPT))
        self._any_blocked = any(one.fate in (Fate.BLOCKED, Fate.CUT, Fate.REVIVE) for one in judged)
        return due(judged)

    def _second_try(self, found: Due) -> Due:
        """What was marked in vain is forgotten, and what was forgotten in vain (ICMP) must run out.

        What was taken over in vain, more than once, is left to the rules.
        """
        fates = ((Fate.CUT, found.cut), (Fate.REVIVE, found.revive), (Fate.FORGET, found.forget))
        first: dict[Fate, list[Tracked]] = {fate: [] for fate, _ in fates}
        for fate, entries in fates:
            for entry in entries:
                act, last = _Act(entry.key, entry.zone, fate), _Act(entry.key, entry.zone, Fate.FORGET)
                if last in self._tried:
                    continue
                step = Fate.FORGET if act in self._tried else fate
                self._tried.update((act, last) if step is Fate.FORGET else (act,))
                first[step].append(entry)
        adopt = {_Act(entry.key, entry.zone, Fate.ADOPT): entry for entry in found.adopt}
        fresh = tuple(entry for act, entry in adopt.items() if self._tried[act] < _TAKE_OVERS)
        self._tried.update(list(adopt))
        return Due(tuple(first[Fate.CUT]), tuple(first[Fate.REVIVE]), tuple(first[Fate.FORGET]), fresh)

    async def _do(self, found: Due) -> None:
        await self._switch.take_over(found.adopt)
        await self._switch.remark(found.cut, blocked=True)
        if helped := [entry for entry in found.cut if entry.is_helped]:
            # Then nothing that was agreed in it is expected any longer (see `compiler.remark`).
            await self._switch.forget_connections(helped)
            await self._switch.remark(helped, blocked=True)
        await self._switch.remark(found.revive, blocked=False)
        await self._switch.forget_connections(found.forget)
        self.totals = self.totals.plus(found)
        self.on_done(found)
        if found:
            logger.info("%s", found)

    def _drop_rounds(self) -> None:
        """Whatever became of it: who begins anew, waits anew."""
        if self._rounds is not None:
            self._rounds.add_done_callback(lambda rounds: rounds.cancelled() or rounds.exception())
            self._rounds.cancel()
            self._rounds = None


def _names(entry: Tracked, ofports: Collection[int]) -> bool:
    return part(entry.mark, p.ORIGIN) in ofports or part(entry.mark, p.TARGET) in ofports


def _hints(flows: Iterable[Flow], reasons: Collection[Reason]) -> Iterable[int]:
    """The hints of those flows that are there for some reasons."""
    for flow in flows:
        why = read_cookie(flow.cookie)
        if why is not None and why[0] in reasons:
            yield why[1]


def only_gives(policy: Policy, change: Diff) -> bool:
    """Whether a change can only let more through than before; in doubt it cannot.

    With tiers, one member or rule more may deny.
    """
    if policy.tiers or change.deletes:
        return False
    adds = all((why := read_cookie(flow.cookie)) is not None and why[0] in _GIVING for flow in change.adds)
    return adds and all(_does_more(old, new) for old, new in change.changes)


def _does_more(old: Flow, new: Flow) -> bool:
    reasons = {why[0] for flow in (old, new) if (why := read_cookie(flow.cookie)) is not None}
    return reasons <= _REACHING or (reasons <= _LISTING and set(old.actions) <= set(new.actions))
