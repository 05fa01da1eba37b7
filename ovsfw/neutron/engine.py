"""Keeps the integration bridge as the agent wants it, in a thread of its own, for the agent's threads block.

The thread runs an asyncio loop with the same `Sync` as the daemon: it follows OVSDB and the switch by itself, so that a
port that gets its VLAN later, or a switch that was restarted, needs no call of the agent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading

from ovsfw.compiler import NEUTRON
from ovsfw.errors import OvsfwError
from ovsfw.neutron.logbook import LogBook
from ovsfw.neutron.source import AgentSource
from ovsfw.pidfile import PidFile
from ovsfw.supervisor import Supervisor
from ovsfw.switch.rundir import default_database, rundir_of
from ovsfw.sync import Place, Sync

logger = logging.getLogger(__name__)

# How long the agent waits for a change to be made, in seconds; it is then made later.
PATIENCE = 30.0
# The daemon's: whoever comes second is refused.
PIDFILE = "ovsfw.pid"
# Another OpenFlow controller, the agent's, may set how fragments are shown; nobody tells us, so we look.
AUDIT_EVERY = 30.0


class Engine:
    """A source, the sync of one bridge, and the thread that runs it."""

    def __init__(self, bridge: str, db: str = "", book: LogBook | None = None) -> None:
        """Begin.  `db` as `ovs-vsctl --db` has it, empty for the local one.  `book` has what is to be logged.

        Raises ConfigError when `ovsfw run` is at work on this machine: two that keep one bridge would fight.
        """
        self._book = book or LogBook()
        self.source = AgentSource(self._book)
        self._place = Place(db or default_database(), bridge, NEUTRON, logs=self._book.is_used)
        self._pidfile = PidFile(rundir_of(self._place.db) / PIDFILE)
        self._pidfile.claim()
        self._pidfile.write()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ovsfw-{bridge}", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._book.on_change = self._logs_changed

    @property
    def modified(self) -> int:
        """How many flows were added, changed or deleted so far."""
        return self._sync.record.flow_mods

    def flush(self) -> bool:
        """Bring the bridge, and its live connections, into step with what the agent has handed over; whether it is.

        Never raises: what cannot be done now is logged, and tried again by the thread.
        """
        if not self.source.publish():
            return False
        return self._settle("the agent")

    def doubt(self) -> None:
        """The switch was restarted: look at all of it."""
        self._loop.call_soon_threadsafe(self._sync.doubt, "the agent has seen a restart")

    def close(self) -> None:
        """End the thread; flows stay."""
        self._loop.call_soon_threadsafe(self._supervisor.stop)
        self._thread.join()
        self._pidfile.release()

    def _logs_changed(self) -> None:
        self.flush()

    async def _log_decisions(self) -> None:
        """Raises SwitchError when the bridge is away."""
        async for decision in self._sync.journal.decisions():
            self._book.tell(decision)

    def _settle(self, why: str) -> bool:
        asked = asyncio.run_coroutine_threadsafe(self._bring_into_step(why), self._loop)
        try:
            asked.result(PATIENCE)
        except OvsfwError as error:
            logger.error("flows are not as the agent wants them; tried again until they are: %s", error)  # noqa: TRY400
        except (TimeoutError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            logger.error("flows are not as the agent wants them yet: no answer within %.0f s", PATIENCE)  # noqa: TRY400
        else:
            return True
        return False

    async def _bring_into_step(self, why: str) -> None:
        await self._sync.settle(why)
        await self._sync.reconciler.settling.looked()

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        """The supervisor starts the sync again, should it ever end by a bug."""
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor()
        self._sync = Sync(self.source, self._place, AUDIT_EVERY)
        self._supervisor.add("sync", self._sync.run)
        if self._book.is_used:
            self._sync.journal.rate, self._sync.journal.burst = self._book.rate, self._book.burst
            self._supervisor.add("decisions", self._log_decisions)
        self._ready.set()
        await self._supervisor.run()
