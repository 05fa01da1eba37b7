"""Ports that become ACTIVE only when their host says, in the policy database, that their flows are there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from ovsfw.store.client import Remote
from ovsfw.store.hosts import Hosts
from ovsfw.store.report import HostState
from ovsfw.supervisor import Backoff
from ovsfw.waiting import within

# Seconds between two looks at hosts that say nothing: such a host dies.
_LOOK = 10.0
# ... and, at first, between two times that Neutron is told of the same port.
_AGAIN = 0.5
# How long a process remembers a port of its own.
_PATIENCE = 300.0


class Readiness:
    """Which hosts take their policy from the database, and which ports wait for them; any thread may ask and add.

    A port waits in the process that has bound it, for a while; `adopt` takes over those that Neutron still knows of.
    """

    def __init__(self, remote: Remote, complete: Callable[[str], bool]) -> None:
        """`complete` tells Neutron that the flows of a port are there; it is told until it says that it has heard."""
        self._remote, self._complete = remote, complete
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[str, float]] = {}
        self._hosts: frozenset[str] = frozenset()
        self._news: asyncio.Event | None = None

    def is_known(self, host: str) -> bool:
        """Whether a host has a row in the policy database, alive or not, as far as is known now."""
        return host in self._hosts

    def adopt(self, ports: Mapping[str, str]) -> None:
        """Wait for these ports, each with its host, too."""
        until = time.monotonic() + _PATIENCE
        with self._lock:
            self._waiting |= {port: (host, until) for port, host in ports.items()}
        news = self._news
        if news is not None:
            self._loop.call_soon_threadsafe(news.set)

    async def run(self) -> None:
        """Follow the hosts for ever."""
        followed, again = Hosts(self._remote), Backoff(_AGAIN, _LOOK)
        self._loop, self._news = asyncio.get_running_loop(), followed.changed
        try:
            while True:
                if await self._look(followed.all()):
                    again.reset()
                    pause = _LOOK
                else:
                    pause = again.pause()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(followed.changed.wait(), pause)
                followed.changed.clear()
        finally:
            self._news = None
            followed.close()

    async def _look(self, found: Sequence[HostState]) -> bool:
        """Whether Neutron has heard of every port that is ready."""
        now = time.time()
        self._hosts = frozenset(host.name for host in found)
        there = {(port, host.name) for host in found if host.is_alive(now) for port in host.ready}
        ready = self._ready(there)
        heard = [port for port in ready if await asyncio.to_thread(self._complete, port)]
        with self._lock:
            for port in heard:
                self._waiting.pop(port, None)
        return len(heard) == len(ready)

    def _ready(self, there: Collection[tuple[str, str]]) -> list[str]:
        """The ports that need not wait any more; those that have waited for too long are forgotten."""
        now = time.monotonic()
        with self._lock:
            self._waiting = {port: (host, until) for port, (host, until) in self._waiting.items() if until > now}
            return [port for port, (host, _) in self._waiting.items() if (port, host) in there]
