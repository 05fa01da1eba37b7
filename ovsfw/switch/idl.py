"""Open vSwitch's Python client for OVSDB, driven by asyncio.

The client (`ovs.db.idl.Idl`) keeps a copy of chosen tables.  It never blocks: `run` does what can be done now, `wait`
says on a poller what to wake up for.  So it needs a poller that belongs to the loop, and no thread.
"""

from __future__ import annotations

import asyncio
import select
import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ovsfw.errors import SwitchError
from ovsfw.waiting import within

# ovs.poller imports eventlet to see whether it has replaced select, which nobody has let it do who has not imported it
# yet.  Importing it takes longer than all of ovsfw, so ovs.poller is told that there is none.
_HIDES_EVENTLET = "eventlet" not in sys.modules
if _HIDES_EVENTLET:
    sys.modules["eventlet"] = None  # type: ignore[assignment] # makes an import fail
try:
    from ovs.db.idl import ROW_CREATE, Idl, SchemaHelper
    from ovs.stream import Stream
finally:
    if _HIDES_EVENTLET:
        del sys.modules["eventlet"]

# Milliseconds between two attempts to reach a database that is away.
_ASK_AGAIN = 1000

__all__ = ["ROW_CREATE", "Idl", "Poller", "Replica", "SchemaHelper", "Stream", "references"]

# Open vSwitch's log (ovs.vlog) says nothing as long as nobody calls Vlog.init().


class Poller:
    """What `Idl.wait` asks to be woken for; stands in for `ovs.poller.Poller`."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}
        self._seconds: float | None = None

    def fd_wait(self, fd: Any, events: int) -> None:  # noqa: ANN401 - a number, or whatever has fileno()
        """Wake up when it can be read or written."""
        number = fd if isinstance(fd, int) else fd.fileno()
        self._events[number] = self._events.get(number, 0) | events

    def timer_wait(self, msec: float) -> None:
        """Wake up in so many milliseconds."""
        seconds = max(0.0, msec / 1000)
        self._seconds = seconds if self._seconds is None else min(seconds, self._seconds)

    def timer_wait_until(self, msec: float) -> None:
        """Wake up at a time, in milliseconds since 1970."""
        # The same clock as ovs.timeval.msec().
        self.timer_wait(msec - time.time() * 1000)

    def immediate_wake(self) -> None:
        """Do not wait at all."""
        self.timer_wait(0)

    async def block(self, woken: asyncio.Event | None = None) -> None:
        """Wait until something of it happens, or somebody sets `woken`."""
        loop = asyncio.get_running_loop()
        woken = woken or asyncio.Event()
        for fd, events in self._events.items():
            if events & select.POLLIN:
                loop.add_reader(fd, woken.set)
            if events & select.POLLOUT:
                loop.add_writer(fd, woken.set)
        timer = None if self._seconds is None else loop.call_later(self._seconds, woken.set)
        try:
            await woken.wait()
        finally:
            if timer is not None:
                timer.cancel()
            for fd in self._events:
                loop.remove_reader(fd)
                loop.remove_writer(fd)


def references(row: Any, column: str) -> list[UUID]:  # noqa: ANN401
    """The rows that a column names, in no order.

    As an attribute of the row it would be a list of rows, sorted: with 500 ports that takes longer than all the rest.
    """
    return [atom.value for atom in row._data[column].values]  # noqa: SLF001 - no other way is quick


class _Noting(Idl):  # type: ignore[misc] # the base class has no types
    """Notes which rows have come, gone or changed."""

    def __init__(self, remote: str, helper: SchemaHelper) -> None:
        self.touched: set[UUID] = set()
        super().__init__(remote, helper, leader_only=False)  # a follower knows as much

    def notify(self, event: object, row: Any, updates: object = None) -> None:  # noqa: ANN401, ARG002
        self.touched.add(row.uuid)


class Replica:
    """A copy of some tables that is kept up to date, also over lost connections: then it is old until it is new.

    `changed` is set whenever the copy changes, and when it has failed for good, `link_changed` when the database goes
    away or comes back; who waits for one clears it.
    """

    def __init__(self, remote: str, schema: Mapping[str, object]) -> None:
        """`remote` as `ovs-vsctl --db` takes it; `schema` in the form of ovsdb(7), with what is wanted and no more."""
        helper = SchemaHelper(schema_json=schema)
        helper.register_all()
        self._idl = _Noting(remote, helper)
        self._idl._session.reconnect.set_backoff(_ASK_AGAIN, _ASK_AGAIN)  # noqa: SLF001 - it would wait for up to 8 s
        self._remote = remote
        self._was_connected = False
        self.link_changed = asyncio.Event()
        self.changed = asyncio.Event()
        self._driver = asyncio.create_task(self._drive())
        self._driver.add_done_callback(lambda _: self.changed.set())
        # Not before: the driver still waits for the file, whose number the next one to be opened gets.
        self._driver.add_done_callback(lambda _: self._idl.close())

    async def synced(self, timeout: float) -> None:
        """Wait for the first whole copy.  Raises SwitchError after `timeout` seconds."""

        async def wait() -> None:
            while not self._is_synced():
                await self.changed.wait()
                self.changed.clear()

        try:
            await within(wait(), timeout)
        except asyncio.TimeoutError:
            raise SwitchError(f"{self._remote}: no answer from the database within {timeout:.0f} s") from None

    @property
    def is_closed(self) -> bool:
        """Whether it will never be new again."""
        return self._driver.done()

    @property
    def is_connected(self) -> bool:
        """Whether the database is there now."""
        return not self.is_closed and bool(self._idl._session.is_connected())  # noqa: SLF001 - nothing else tells

    def rows(self, table: str) -> list[Any]:
        """All rows of a table.  Raises SwitchError when the client has failed."""
        self._is_synced()
        return list(self._idl.tables[table].rows.values())

    def row(self, table: str, uuid: UUID) -> Any:  # noqa: ANN401
        """One row.  Raises KeyError for none."""
        return self._idl.tables[table].rows[uuid]

    def touched(self) -> set[UUID]:
        """The rows that may differ from what they were when this was asked last."""
        touched, self._idl.touched = self._idl.touched, set()
        return touched

    def close(self) -> None:
        """Stop; doing it again is fine."""
        self._driver.cancel()

    def _is_synced(self) -> bool:
        if self._driver.done():
            raise SwitchError(f"{self._remote}: the connection to the database is closed")
        return bool(self._idl.has_ever_connected())

    async def _drive(self) -> None:
        seen = self._idl.change_seqno
        while True:
            self._idl.run()
            if self._idl.change_seqno != seen:
                seen = self._idl.change_seqno
                self.changed.set()
            if self.is_connected != self._was_connected:
                self._was_connected = self.is_connected
                self.link_changed.set()
            poller = Poller()
            self._idl.wait(poller)
            await poller.block()
