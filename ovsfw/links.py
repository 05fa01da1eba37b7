"""The connections to one bridge and its database: made where they are missing, and listened to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass

from ovsfw.openflow.monitor import Event
from ovsfw.switch.channel import Channel
from ovsfw.switch.ovsdb import Ovsdb
from ovsfw.switch.rundir import management_socket, rundir_of

_AWAY = (
    "ovsdb-server is away: what was known of the ports stands, and Open vSwitch takes no changes of flows until it is "
    "back; look at: systemctl status ovsdb-server"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told: of news in the database, of ports on the switch, of flows, and that the switch was lost."""

    database: Callable[[], None]
    ports: Callable[[], None]
    flows: Callable[[Iterable[Event]], None]
    lost: Callable[[], None]


class Links:
    """Its state is the connections, and the tasks that listen to them.

    `channel` is where flows are read and changed; a new connection is one to a switch that may hold anything.
    """

    def __init__(self, db: str, bridge: str, tables: Collection[int], ears: Ears) -> None:
        """No connection yet; of flows in `tables` is told."""
        self.path = management_socket(bridge, rundir_of(db))
        self.channel = Channel()
        self._db, self._tables, self._ears = db, tables, ears
        self._ovsdb: Ovsdb | None = None
        self._followers: list[asyncio.Task[None]] = []
        # Since when the database is away (time.time()); 0 while it is there, and while there was none yet.
        self.away_since = 0.0

    async def database(self) -> Ovsdb:
        """The copy of OVSDB; it follows the database by itself from then on.  Raises SwitchError."""
        if self._ovsdb is None or self._ovsdb.is_closed:
            ovsdb = Ovsdb()
            await ovsdb.connect(self._db)
            self._ovsdb = ovsdb
            self.away_since = 0.0
            self.follow(self._follow_database(ovsdb))
            self.follow(self._follow_link(ovsdb))
        return self._ovsdb

    async def connect(self) -> bool:
        """Connect to the switch anew; whether it tells what others do to flows.  Raises SwitchError."""
        await self.channel.connect(self.path)
        watching = await self.channel.watch(self._tables, self._ears.flows)
        await self.channel.watch_ports(self._ears.ports)
        self.follow(self._follow_channel())
        return watching

    def follow(self, work: Coroutine[None, None, None]) -> None:
        """Let something be done beside until `close`."""
        self._followers = [task for task in self._followers if not task.done()]
        self._followers.append(asyncio.create_task(work))

    def close(self) -> None:
        """End all of it at once."""
        for task in self._followers:
            task.cancel()
        self.channel.close()
        if self._ovsdb is not None:
            self._ovsdb.close()
            self._ovsdb = None

    async def _follow_database(self, ovsdb: Ovsdb) -> None:
        while True:
            await ovsdb.changed.wait()
            ovsdb.changed.clear()
            self._ears.database()

    async def _follow_link(self, ovsdb: Ovsdb) -> None:
        while True:
            if ovsdb.is_connected and self.away_since:
                logger.info("ovsdb-server is back after %.0f s", time.time() - self.away_since)
                self.away_since = 0.0
            elif not ovsdb.is_connected and not self.away_since:
                logger.error(_AWAY)
                self.away_since = time.time()
            await ovsdb.link_changed.wait()
            ovsdb.link_changed.clear()

    async def _follow_channel(self) -> None:
        logger.debug("%s", await self.channel.lost())
        self._ears.lost()
