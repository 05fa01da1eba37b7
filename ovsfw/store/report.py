"""What a host says about itself in the policy database: one row, written by nobody else.

A host says at once what somebody waits for (`--wait=hosts`), and which ports it has; otherwise now and then, so that a
thousand hosts do not answer every change.  A host that has said nothing for `DEAD_AFTER` is taken for dead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ovsfw import __version__
from ovsfw.errors import StoreError
from ovsfw.store.client import Connection, Remote, connected
from ovsfw.store.editing import Operation, transact
from ovsfw.waiting import within

logger = logging.getLogger(__name__)

SAY_EVERY = 10.0
DEAD_AFTER = 3 * SAY_EVERY
ANSWER_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Word:
    """The generation that is in the flows, the ports that are plugged, those of them with flows, and what is wrong."""

    generation: int = 0
    ports: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    problem: str = ""

    @property
    def news(self) -> tuple[object, ...]:
        """What is told at once."""
        return self.ports, self.ready, self.problem, self.generation > 0


class Reporter:
    """Keeps a host's row; what it says is lost while the database is away, and said again later."""

    def __init__(self, remote: Remote, host: str, say_every: float = SAY_EVERY) -> None:
        """`host` is the name of the row, and with TLS that of the certificate."""
        self._remote = remote
        self._host = host
        self._say_every = say_every
        self._word = Word()
        self._said: Word | None = None
        self._urgent = asyncio.Event()
        self._complained = ""

    def say(self, word: Word, *, awaited: int) -> None:
        """Somebody waits for the generation `awaited`; the first one is said at once, too."""
        self._word = word
        said = self._said or Word(-1)
        if word.news != said.news or self._said is None or said.generation < min(awaited, word.generation):
            self._urgent.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async with connected(self._remote) as connection:
                    while True:
                        await self._pause()
                        await self._write(connection, self._word)
            except asyncio.TimeoutError:
                self._complain(f"{self._remote}: no answer within {ANSWER_TIMEOUT:.0f} s")
            except (StoreError, OSError) as error:
                self._complain(str(error))
            await asyncio.sleep(1)
            self._urgent.set()

    def _complain(self, problem: str) -> None:
        if problem != self._complained:
            self._complained = problem
            logger.warning("cannot say in the policy database what this host has: %s", problem)

    async def _pause(self) -> None:
        # Not wait_for: before Python 3.12 that may lose a cancellation.
        timer = asyncio.get_running_loop().call_later(self._say_every, self._urgent.set)
        try:
            await self._urgent.wait()
        finally:
            timer.cancel()
        self._urgent.clear()

    async def _write(self, connection: Connection, word: Word) -> None:
        row: Operation = {
            **asdict(word),
            "ports": ["set", list(word.ports)],
            "ready": ["set", list(word.ready)],
            "last_seen": int(time.time()),
            "version": __version__,
        }
        update = {"op": "update", "table": "Host", "where": [["name", "==", self._host]], "row": row}
        insert = {"op": "insert", "table": "Host", "row": {"name": self._host, **row}}
        (answer,) = await self._transact(connection, update)
        if not answer["count"]:
            await self._transact(connection, insert)
        self._said, self._complained = word, ""

    async def _transact(self, connection: Connection, operation: Operation) -> list[Any]:
        """Where the network is cut, nobody says so."""
        return await within(transact(connection, [operation]), ANSWER_TIMEOUT)


@dataclass(frozen=True, slots=True)
class HostState:
    """A host's row, as others see it; `last_seen` in seconds since 1970, by the clock of the host.

    `ports` are plugged there, and of these `ready` have their flows.
    """

    name: str
    generation: int
    last_seen: int
    ports: tuple[str, ...]
    ready: tuple[str, ...]
    version: str
    problem: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> HostState:
        """From a row as the server sends it."""
        fields = {name: row[name] for name in ("name", "generation", "last_seen", "version", "problem")}
        return cls(ports=_names(row["ports"]), ready=_names(row["ready"]), **fields)

    def is_alive(self, now: float) -> bool:
        """Whether it has said something lately."""
        return now - self.last_seen <= DEAD_AFTER


def _names(found: Any) -> tuple[str, ...]:  # noqa: ANN401
    """A set is ["set", [...]], or the bare element where it has one (RFC 7047, section 5.1)."""
    return tuple(sorted(found[1] if isinstance(found, list) else [found]))
