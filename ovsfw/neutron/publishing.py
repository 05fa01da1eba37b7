"""The thread of a server process that publishes what its hooks have marked, and now and then compares everything.

Hooks only say which object is another one now; they never wait for a database, and never fail.  What is marked stays
so until it is published, so an outage of the policy database costs nothing but time.  The marks of a process that is
killed are lost; the comparison finds what they were about.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ovsfw.errors import OvsfwError
from ovsfw.neutron.publisher import Neutron, Publisher
from ovsfw.neutron.readiness import Readiness
from ovsfw.store.client import Remote
from ovsfw.store.rows import Key
from ovsfw.supervisor import Backoff, Supervisor

logger = logging.getLogger(__name__)

# Seconds that are waited for more marks, as of a bulk request.
_COALESCE = 0.01
_FIRST_PAUSE = 0.1
_LOOK_AFTER = 60.0
# How often a process asks whether it is its turn.
_TURN = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the policy database is; `retry` is the longest pause, `repair` that between comparisons, in seconds."""

    remote: Remote
    retry: float
    repair: float


class Ports(Protocol):
    """Which ports of Neutron wait for their flows."""

    def complete(self, port: str) -> bool:
        """Let a port go on; whether it does."""

    def blocked(self) -> Mapping[str, str]:
        """The ports that wait, and their hosts."""


class Publishing:
    """The marks of this process, and the thread that works them off.

    Server processes fork after their drivers have been made, so the thread begins with the first mark of each.
    """

    def __init__(self, settings: Settings, neutron: Neutron, ports: Ports) -> None:
        self._settings, self._ports = settings, ports
        self._publisher = Publisher(settings.remote, neutron)
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """A child has no thread; the marks there are, and locks that were held, are its parent's."""
        self.readiness = Readiness(self._settings.remote, self._ports.complete)
        self._lock = threading.Lock()
        self._marks: set[Key] = set()
        self._thread: threading.Thread | None = None

    def mark(self, units: Iterable[Key]) -> None:
        """These are others now, or gone."""
        with self._lock:
            self._marks.update(units)
        self.begin()

    def begin(self) -> None:
        """Be at work in this process; doing it again wakes it."""
        with self._lock:
            if self._thread is None:
                ready = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(ready,), name="ovsfw-publish", daemon=True)
                self._thread.start()
                ready.wait()
        self._loop.call_soon_threadsafe(self._due.set)

    def wait_for_flows(self, port: str, host: str) -> None:
        """Watch out for the flows of a port."""
        self.readiness.adopt({port: host})
        self.begin()

    def close(self) -> None:
        """End the thread; marks that are left are lost."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._supervisor.stop)
            self._thread.join()
            self._thread = None

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._work(ready))

    async def _work(self, ready: threading.Event) -> None:
        self._loop, self._due = asyncio.get_running_loop(), asyncio.Event()
        self._supervisor = supervisor = Supervisor()
        supervisor.add("publish", self._publish)
        supervisor.add("look after", self._look_after)
        supervisor.add("readiness", self.readiness.run)
        ready.set()
        await supervisor.run()

    async def _publish(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, self._settings.retry)
        complained = ""
        while True:
            await self._due.wait()
            await asyncio.sleep(_COALESCE)
            self._due.clear()
            units = self._take()
            if not units:
                continue
            try:
                change = await self._publisher.publish(units)
            except Exception as error:  # noqa: BLE001 - what is marked must not be lost by anything
                self._give_back(units)
                if str(error) != complained:
                    complained = str(error)
                    self._complain(error, len(units))
                await asyncio.sleep(backoff.pause())
            else:
                complained = ""
                backoff.reset()
                logger.debug("published %d objects: %s", len(units), change.difference)
                for problem in change.problems:
                    logger.error("%s", problem)
                if change.stale:
                    self._give_back(change.stale)
                    await asyncio.sleep(backoff.pause())

    def _complain(self, error: Exception, count: int) -> None:
        said = f"{count} changed objects wait to be published; tried again until it works: {error}"
        logger.error("%s", said, exc_info=not isinstance(error, (OvsfwError, OSError)))

    def _take(self) -> set[Key]:
        with self._lock:
            units, self._marks = self._marks, set()
        return units

    def _give_back(self, units: Iterable[Key]) -> None:
        with self._lock:
            self._marks.update(units)
        self._due.set()

    async def _look_after(self) -> None:
        """What processes that have ended, or callbacks that Neutron lacks, have left behind; one server at a time."""
        every = self._settings.repair or _LOOK_AFTER
        while True:
            if await self._publisher.take_turn(every):
                if self._settings.repair:
                    await self._repair()
                self.readiness.adopt(await asyncio.to_thread(self._ports.blocked))
            await asyncio.sleep(min(every, _TURN))

    async def _repair(self) -> None:
        began = time.monotonic()
        change = (await self._publisher.repair()).change
        if change.matters:
            logger.warning("the policy database differed from Neutron's, and was mended: %s", change.difference)
        for problem in change.problems:
            logger.error("%s", problem)
        logger.debug("compared all of it in %.1f s", time.monotonic() - began)
