"""Ports that become ACTIVE only when their host says, in the policy database, that their flows are there."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

from ovsfw.errors import StoreError
from ovsfw.store.client import Remote
from ovsfw.store.waiting import hosts
from ovsfw.supervisor import Backoff

logger = logging.getLogger(__name__)

# Seconds: between two looks at the hosts while a port waits, and while none does.
_LOOK = (0.1, 2.0)
_IDLE = 10.0
# How long a process remembers a port of its own.
_PATIENCE = 300.0


class Readiness:
    """Which hosts take their policy from the database, and which ports wait for them; any thread may ask and add.

    A port waits in the process that has bound it, for a while; `adopt` takes over those that Neutron still knows of.
    """

    def __init__(self, remote: Remote, complete: Callable[[str], None]) -> None:
        """`complete` tells Neutron that the flows of a port are there; it may be told so twice."""
        self._remote, self._complete = remote, complete
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[str, float]] = {}
        self._hosts: frozenset[str] = frozenset()

    def is_known(self, host: str) -> bool:
        """Whether a host has a row in the policy database, alive or not, as of a few seconds ago."""
        return host in self._hosts

    def adopt(self, ports: Mapping[str, str]) -> None:
        """Wait for these ports, each with its host, too."""
        until = time.monotonic() + _PATIENCE
        with self._lock:
            self._waiting |= {port: (host, until) for port, host in ports.items()}

    async def run(self, due: asyncio.Event) -> None:
        """Look for ever; at once when `due` is set."""
        backoff = Backoff(*_LOOK)
        while True:
            waiting = self._still_waiting()
            await self._look(waiting)
            try:
                await asyncio.wait_for(due.wait(), backoff.pause() if waiting else _IDLE)
            except asyncio.TimeoutError:
                continue
            due.clear()
            backoff.reset()

    def _still_waiting(self) -> dict[str, str]:
        now = time.monotonic()
        with self._lock:
            self._waiting = {port: (host, until) for port, (host, until) in self._waiting.items() if until > now}
            return {port: host for port, (host, _) in self._waiting.items()}

    async def _look(self, waiting: Mapping[str, str]) -> None:
        try:
            self._hosts, states = await hosts(self._remote, frozenset(waiting.values()))
        except (StoreError, OSError) as error:
            logger.debug("the hosts are not known now: %s", error)
            return
        now = time.time()
        there = {(port, host.name) for host in states.values() if host.is_alive(now) for port in host.ports}
        for port, host in waiting.items():
            if (port, host) in there:
                await asyncio.to_thread(self._complete, port)
                with self._lock:
                    self._waiting.pop(port, None)
