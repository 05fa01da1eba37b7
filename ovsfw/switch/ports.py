"""The ports of a bridge and their NO_FLOOD flag, over a short connection in OpenFlow 1.0: no later version has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.openflow import port, wire
from ovsfw.openflow.port import SwitchPort
from ovsfw.switch.connection import Connection


async def read(path: Path) -> dict[int, SwitchPort]:
    """The ports of a bridge by their OpenFlow number.  Raises SwitchError."""
    async with _connected(path) as connection:
        return await _ports(connection)


async def set_no_flood(path: Path, ofports: Collection[int], *, on: bool) -> None:
    """Set or clear the flag where it is not so yet.  Raises SwitchError when a port does not take it."""
    async with _connected(path) as connection:
        todo = await _differing(connection, ofports, on=on)
        if todo:
            await connection.send([port.set_no_flood(each, connection.xids(), on=on) for each in todo])
            # The switch answers nothing when all is well, so look again.
            left = await _differing(connection, ofports, on=on)
            if left:
                raise SwitchError(f"{path}: the switch did not set no-flood={on} on port {left[0].name}; try again")


async def watch(path: Path, heard: Callable[[], None]) -> Connection:
    """Call `heard` whenever a port of a bridge has changed, until the connection is closed.  Raises SwitchError."""
    connection = await Connection.open(path, port.VERSION)
    connection.unasked = lambda message: heard() if port.is_news(message) else None
    try:
        xid = connection.xids()
        await connection.send([port.config_request(xid)])
        fragments = wire.fragment_handling(await connection.reply(xid))
        await connection.send(port.only_news_of_ports(fragments, connection.xids(2)))
    except BaseException:
        connection.close()
        raise
    return connection


async def _differing(connection: Connection, ofports: Collection[int], *, on: bool) -> list[SwitchPort]:
    present = await _ports(connection)
    return [present[number] for number in sorted(ofports) if number in present and present[number].no_flood != on]


async def _ports(connection: Connection) -> dict[int, SwitchPort]:
    found = await connection.gather(port.ports_request, port.parse_ports, port.has_more)
    return {each.ofport: each for each in found}


@asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[Connection]:
    connection = await Connection.open(path, port.VERSION)
    try:
        yield connection
    finally:
        connection.close()
