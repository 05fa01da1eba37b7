"""The ports of a bridge and their NO_FLOOD flag, over a connection in OpenFlow 1.0: no later version has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ovsfw.errors import SwitchError
from ovsfw.openflow import port, wire
from ovsfw.openflow.port import SwitchPort
from ovsfw.switch.connection import Connection

# A port that has changed since it was read last does not take the flag; then it is read, and asked once more.
_ATTEMPTS = 2


class Ports:
    """The ports behind one connection; one request at a time.

    Its state is the ports as they were read last, which the switch wants to be told when a flag is set.
    """

    def __init__(self, connection: Connection) -> None:
        """`connection` speaks `port.VERSION`."""
        self._connection = connection
        self._present: Mapping[int, SwitchPort] = {}

    async def watch(self, heard: Callable[[], None]) -> None:
        """Call `heard` from now on whenever somebody else has changed a port.  Raises SwitchError."""
        connection = self._connection
        connection.unasked = lambda message: heard() if port.is_news(message) else None
        xid = connection.xids()
        await connection.send([port.config_request(xid)])
        fragments = wire.fragment_handling(await connection.reply(xid))
        await connection.send(port.only_news_of_ports(fragments, connection.xids(2)))

    async def read(self) -> Mapping[int, SwitchPort]:
        """The ports of the bridge by their OpenFlow number.  Raises SwitchError."""
        found = await self._connection.gather(port.ports_request, port.parse_ports, port.has_more)
        self._present = {each.ofport: each for each in found}
        return self._present

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        """Set or clear the flag where it is not so yet.  Raises SwitchError when a port does not take it."""
        left = self._differing(ofports, on=on)
        for _ in range(_ATTEMPTS):
            await self._connection.send([port.set_no_flood(each, self._connection.xids(), on=on) for each in left])
            # The switch answers nothing when all is well, so look.
            await self.read()
            left = self._differing(ofports, on=on)
            if not left:
                return
        path = self._connection.path
        raise SwitchError(f"{path}: the switch did not set no-flood={on} on port {left[0].name}; try again")

    def _differing(self, ofports: Collection[int], *, on: bool) -> list[SwitchPort]:
        present = self._present
        return [present[number] for number in sorted(ofports) if number in present and present[number].no_flood != on]
