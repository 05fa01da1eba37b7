"""The loop that keeps one bridge in step with one source.

Everything that happens (the policy is new, a port is plugged, the connection is lost, somebody asks) only wakes the
loop; each turn looks at what is true now, and makes the bridge so.  What goes wrong is recorded and tried again after a
pause that grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ovsfw.answering import Answering
from ovsfw.cautions import Cautions
from ovsfw.compiler import STANDALONE, Bindings, Hook, Sends
from ovsfw.compiler.pipeline import OWN_TABLES
from ovsfw.errors import OvsfwError, SwitchError
from ovsfw.explain.journal import Journal
from ovsfw.explain.known import Known
from ovsfw.explain.watch import Watch
from ovsfw.links import Ears, Links
from ovsfw.news import joined, plugging, repairs, was_open
from ovsfw.openflow.monitor import Event
from ovsfw.policy.model import Policy
from ovsfw.reconciler import Change, Reconciler
from ovsfw.record import Note, Record, State
from ovsfw.sources.source import Source, SourceState
from ovsfw.supervisor import Backoff
from ovsfw.switch.transact import set_secure
from ovsfw.waiting import within

logger = logging.getLogger(__name__)

# Seconds.  Whether somebody listens again is asked often, for it costs nothing; what was refused is tried less often.
_AWAY = (0.05, 1.0)
_REFUSED = (0.1, 30.0)
AUDIT_EVERY = 300.0

# Where there is no flow monitor, what others do is found by looking.
AUDIT_UNWATCHED = 10.0

_NO_MONITOR = (
    "Open vSwitch before 3.0 has no flow monitor: what others do to our flows is found and undone only when looking, "
    f"every {AUDIT_UNWATCHED:.0f} s"
)
_WAS_OPEN = "the flow that leads into the filter was gone: until now, everything passed"
_OF_THE_AGENT = "; Neutron's agent clears it away after its start unless it has `extensions = ovsfw`"


@dataclass(frozen=True, slots=True)
class Place:
    """Which bridge: the address of the local OVSDB as `ovs-vsctl --db` has it, a name; and the filter's place in it.

    `records_drops` says that what is dropped is taken down, where the switch has meters; `logs` that what the policy
    wants to have logged is.
    """

    db: str
    bridge: str
    hook: Hook = STANDALONE
    records_drops: bool = False
    logs: bool = False


class Sync:
    """Its state is what it last brought into step (`policy`, `bindings`), and the `record` of how that went."""

    def __init__(
        self, source: Source, place: Place, audit_every: float = AUDIT_EVERY, *, set_fail_mode: bool = False
    ) -> None:
        """`audit_every` is the time between two whole looks at the switch, in seconds.

        With `set_fail_mode` a bridge whose fail_mode is not secure is given that.
        """
        self._set_fail_mode = set_fail_mode
        self.place = place
        self.record = Record()
        ears = Ears(self._heard_of_database, self._heard_of_ports, self._observe, lambda: self.doubt(""))
        self.links = Links(place.db, place.bridge, (place.hook.table, *sorted(OWN_TABLES)), ears)
        self.reconciler = Reconciler(self.links.channel, place.hook)
        known = Known(self._known)
        self.watch, self.journal = Watch(self.links.path, known), Journal(self.links.path, known)
        self.answering = Answering(self.links.path)
        self._cautions = Cautions(place.hook, logs=place.logs)
        self.policy: Policy | None = None
        self.bindings: Bindings | None = None
        self._filters: tuple[Policy, Bindings, frozenset[str]] | None = None
        self._source, self._audit_every = source, audit_every
        self._told = SourceState()
        self._due, self._news = asyncio.Event(), asyncio.Event()
        self._why: list[str] = ["start"]
        self._asked: list[asyncio.Future[str]] = []
        self._fresh = True
        # How often something about ports was heard, and how often when the switch was last in step with it.
        self._port_news, self._port_news_seen = 0, -1
        self._next_audit = time.monotonic() + audit_every
        self._away, self._refused = Backoff(*_AWAY), Backoff(*_REFUSED)

    @property
    def is_healthy(self) -> bool:
        """Whether the switch holds what the source says now, and the database tells what is plugged in."""
        return self.record.state is State.IN_SYNC and not self._source.state().problem and not self.links.away_since

    def heard(self) -> None:
        """The source may have another policy, or another state."""
        self._news.set()
        self.wake("")

    def wake(self, why: str) -> None:
        """Look soon."""
        if why:
            self._why.append(why)
        self._due.set()

    def doubt(self, why: str) -> None:
        """Look soon, and at everything that the switch holds."""
        self.reconciler.doubt()
        self.wake(why)

    async def reconcile(self, why: str) -> str:
        """Look at everything now, and say what was changed.  Raises OvsfwError."""
        self.reconciler.doubt()
        return await self.settle(why)

    async def settle(self, why: str) -> str:
        """Bring the bridge into step with the source now, and say what was changed.  Raises OvsfwError."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._news.set()
        self.wake(why)
        return await answer

    async def run(self) -> None:
        """Keep in step until cancelled."""
        pause: float | None = 0.0
        self.reconciler.doubt()
        self.links.follow(self.reconciler.settling.run())
        try:
            while True:
                await self._wait(pause)
                pause = await self._turn()
        finally:
            self._close()

    async def _wait(self, pause: float | None) -> None:
        """For something to do, or after a failure for news or the end of a pause; at the latest for the next audit."""
        event, seconds = (self._news, pause) if pause is not None else (self._due, self._next_audit - time.monotonic())
        with contextlib.suppress(asyncio.TimeoutError):
            await within(event.wait(), seconds)
        if time.monotonic() >= self._next_audit:
            self._plan_audit()
            self.doubt("audit")

    def _plan_audit(self) -> None:
        every = self._audit_every if self.record.watching else min(self._audit_every, AUDIT_UNWATCHED)
        self._next_audit = time.monotonic() + every

    async def _turn(self) -> float | None:
        """One step; the pause until the next, None when it went well."""
        self._due.clear()
        self._news.clear()
        why, self._why = self._why, []
        asked, self._asked = self._asked, []
        self.record.busy = time.time()
        try:
            said = await self._step(why)
        except OvsfwError as error:
            self._keep(why)
            for answer in asked:
                answer.set_exception(error)
            return self._failed(error)
        except BaseException:
            for answer in asked:
                answer.cancel()
            raise
        finally:
            self.record.busy = 0.0
        for answer in asked:
            answer.set_result(said)
        self._away.reset()
        self._refused.reset()
        return None

    def _keep(self, why: list[str]) -> None:
        """The reasons of a step that changed nothing are those of the next."""
        self._why = list(dict.fromkeys(why + self._why))

    def _failed(self, error: OvsfwError) -> float:
        self.record.failures += 1
        self.record.last_error = Note(str(error), time.time())
        if self.record.become(State.FAILING, str(error)):
            for line in str(error).splitlines():
                logger.error("not in sync: %s", line)
        return (self._refused if self.links.channel.is_open else self._away).pause()

    async def _step(self, why: list[str]) -> str:
        ovsdb = await self.links.database()
        port_news = self._port_news
        bindings = ovsdb.snapshot(self.place.bridge)
        self._source.plugged(frozenset(bound.port_id for bound in bindings.endpoints))
        self._tell_of_source()
        policy = self._source.policy()
        if policy is None:
            self.record.become(State.WAITING, self._source.state().problem)
            self._keep(why)
            return "the policy is not known yet: nothing was touched"
        if self._set_fail_mode and ovsdb.fail_mode(self.place.bridge) != "secure":
            await set_secure(self.place.db, self.place.bridge)
            logger.warning("fail_mode of %s is secure now; it was not", self.place.bridge)
        await self._connect(why)
        self.reconciler.sends = await self._sends(policy, anew=self.reconciler.in_doubt)
        whole, began = self.reconciler.in_doubt, time.perf_counter()
        settings_hold = port_news == self._port_news_seen and bindings is self.bindings
        change = await self.reconciler.step(policy, bindings, settings_hold=settings_hold)
        self._port_news_seen = port_news
        milliseconds = (time.perf_counter() - began) * 1000
        if whole:
            self.record.dumped = time.time()
            self._plan_audit()
            self._cautions.read(self.reconciler.others)
        if policy is not self.policy:
            self._cautions.enforced(policy)
        said = self._note(change or Change(), milliseconds, self._reasons(why, policy, bindings), policy, bindings)
        self._warn(ovsdb.fail_mode(self.place.bridge))
        await self._source.applied(policy, self._filtered(policy, bindings))
        return said

    async def _sends(self, policy: Policy, *, anew: bool) -> Sends:
        """Which copies flows may send: those for which there are meters.  `anew`: they may have been lost."""
        records = self.place.records_drops and await self.watch.meters.are_there(anew=anew)
        if self.place.logs and anew:
            await self.journal.prepare()
        return Sends(records, await self.answering.prepare(policy, anew=anew), self.place.logs)

    def _known(self) -> tuple[Policy, Bindings] | None:
        return None if self.policy is None or self.bindings is None else (self.policy, self.bindings)

    def _reasons(self, why: list[str], policy: Policy, bindings: Bindings) -> list[str]:
        if self.policy is not None and policy is not self.policy:
            why.append(f"policy {self._source.state().generation}")
        if self.bindings is not None:
            why.extend(plugging(self.bindings, bindings))
        return why

    def _filtered(self, policy: Policy, bindings: Bindings) -> frozenset[str]:
        """The ports that pass what the policy says; the others pass nothing yet.  Looked up once for the same two."""
        if self._filters is None or self._filters[0] is not policy or self._filters[1] is not bindings:
            wired = (bound for bound in bindings.endpoints if bound.vlan not in self.place.hook.unwired)
            names = frozenset(bound.port_id for bound in wired if bound.port_id in policy.ports)
            self._filters = policy, bindings, names
        return self._filters[2]

    def _note(self, change: Change, milliseconds: float, why: list[str], policy: Policy, bindings: Bindings) -> str:
        """Record and log a step that went well."""
        record, now = self.record, time.time()
        drift = not self._fresh and policy is self.policy and bindings == self.bindings
        said = f"{change} in {milliseconds:.0f} ms ({joined(why)})" if change else "0 changes"
        record.steps += 1
        record.agreed = now
        if was_open(change.flows, self.reconciler.flows):
            logger.error("%s%s", _WAS_OPEN, _OF_THE_AGENT if self.place.hook.inside else "")
        if change and drift:
            record.repairs += 1
            record.repaired_flows += len(change.flows)
            record.last_repair = Note(said, now)
            for line in repairs(change.flows):
                logger.warning("%s", line)
            logger.warning("repaired: %s", said)
        elif change:
            record.changes += 1
            record.last_change = Note(said, now)
            logger.info("%s", said)
        record.flow_mods += len(change.flows)
        if change:
            record.took(milliseconds / 1000)
        if record.become(State.IN_SYNC):
            logger.info("in sync: %d flows, %d ports", len(self.reconciler.flows), len(bindings.endpoints))
        self._fresh, self.policy, self.bindings = False, policy, bindings
        return said

    def _tell_of_source(self) -> None:
        """Log what has happened to the policy, once."""
        state = self._source.state()
        if state == self._told:
            return
        level, what = (logging.ERROR, "policy refused") if state.refused else (logging.WARNING, "no new policy")
        for line in state.problem.splitlines():
            logger.log(level, "%s: %s", what, line)
        if state.problem and self._source.policy() is not None:
            logger.log(level, "%s: the one before (%s) stays", what, state.generation)
        if self._told.problem and not state.problem:
            logger.info("policy is well: %s", state.generation)
        self._told = state

    def _warn(self, fail_mode: str) -> None:
        found = self._cautions.found(self.place.bridge, fail_mode, self.reconciler.flows)
        for warning in found:
            if warning not in self.record.warnings:
                logger.warning("%s", warning)
        self.record.warnings = found

    def _heard_of_database(self) -> None:
        self._news.set()
        self.wake("")

    def _heard_of_ports(self) -> None:
        """The next step asks the switch for its settings."""
        self._port_news += 1
        self.wake("")

    async def _connect(self, why: list[str]) -> None:
        """Make sure that the switch can be spoken to; a new connection is one to a switch that may hold anything."""
        if self.links.channel.is_open:
            return
        self.reconciler.doubt()
        self._fresh = True
        self.record.watching = await self.links.connect()
        self.record.connects += 1
        if not self.record.watching and self.record.connects == 1:
            logger.warning("%s", _NO_MONITOR)
        if self.record.connects > 1:
            why.append("connected again")

    def _observe(self, events: Iterable[Event]) -> None:
        """What others do to flows and ports."""
        told = list(events)
        cautioned = [self._cautions.observe(kind, flow) for kind, flow in told if flow is not None]
        if self.reconciler.observe(told) or any(cautioned):
            self.wake("")

    def _close(self) -> None:
        for answer in self._asked:
            answer.set_exception(SwitchError("the daemon is stopping"))
        self._asked.clear()
        self.links.close()
