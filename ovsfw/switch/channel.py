"""The flows and ports of one bridge: read them all, and change flows in one atomic step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TypeVar

from ovsfw.compiler.remark import remark_actions, take_over_actions
from ovsfw.errors import SwitchError
from ovsfw.openflow import port, wire
from ovsfw.openflow.action import encode_actions
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import Entry, Flow
from ovsfw.openflow.monitor import Event, events, monitor_request
from ovsfw.openflow.packet import answer_of
from ovsfw.openflow.port import SwitchPort
from ovsfw.openflow.text import format_flow
from ovsfw.openflow.tracked import Tracked
from ovsfw.openflow.wire import BundleStep
from ovsfw.switch import limits
from ovsfw.switch.connection import Connection
from ovsfw.switch.conntrack import Conntrack
from ovsfw.switch.ports import Ports
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl
from ovsfw.waiting import within

# Seconds without an answer until the switch counts as stuck.  A bundle may take longer: a slow machine commits a
# thousand flows in 0.3 s.
TIMEOUT = 30.0
SECONDS_PER_FLOW = 0.001

T = TypeVar("T")


class Channel:
    """OpenFlow to one bridge; one request at a time, others wait their turn.

    Its state is two connections, one of them for what only OpenFlow 1.0 knows of ports, made when that is wanted first.
    Any error leaves both closed, because it is then not known what the switch has got; connect again and dump.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._connection: Connection | None = None
        self._ports: Ports | None = None
        self._turn, self._turn_at_ports = asyncio.Lock(), asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it can be used now."""
        return self._connection is not None and not self._connection.broken

    async def connect(self, path: Path) -> None:
        """Connect to `<rundir>/<bridge>.mgmt`.  Raises SwitchError that says what to do."""
        self.close()
        self._ports = None
        self._connection = await _timed(Connection.open(path), f"{path}: connecting", self._timeout)

    def close(self) -> None:
        """Close at once; doing it again is fine."""
        if self._connection is not None:
            self._connection.close()

    async def lost(self) -> str:
        """Wait until a connection is lost or closed, and say why."""
        return await self._connected().lost()

    async def watch(self, tables: Collection[int], heard: Callable[[Iterable[Event]], None]) -> bool:
        """Tell `heard` from now on what others do to flows in some tables.

        Over this very connection, because only so is it known what came before our own changes and what after.  False
        when Open vSwitch is too old (before 3.0) to tell; raises SwitchError.
        """

        async def ask(connection: Connection) -> bool:
            connection.unasked = lambda message: heard(events(message))
            xid = connection.xids(2)
            await connection.send([monitor_request(tables, xid), wire.barrier(xid + 1)])
            # One that is too old refuses without saying what: its error has the transaction id 0.
            return not await _refusals(connection, xid + 1)

        return await self._ask(ask, "starting the flow monitor")

    async def dump_flows(self) -> list[Entry]:
        """Every flow of the bridge, whoever made it, in no order.  Raises SwitchError."""
        return await self._ask(
            lambda connection: connection.gather(wire.flows_request, wire.parse_flows), "reading flows"
        )

    async def dump_counters(self) -> list[wire.Counted]:
        """Every flow of the bridge with its counters.  Raises SwitchError."""
        return await self._ask(
            lambda connection: connection.gather(wire.flows_request, wire.parse_counters), "reading counters"
        )

    async def apply(self, diff: Diff) -> None:
        """Make all changes or none, in one bundle; an empty diff sends nothing.

        Raises SwitchError that shows the flow that was refused.  After a timeout or a lost connection the changes may
        have been made all the same.
        """
        if diff:
            seconds = self._timeout + len(diff) * SECONDS_PER_FLOW
            await self._ask(lambda connection: _bundle(connection, diff), f"changing flows ({diff})", seconds)

    async def watch_ports(self, heard: Callable[[], None]) -> None:
        """Call `heard` from now on whenever somebody else has changed a port of the bridge.  Raises SwitchError."""
        await self._ask_ports(lambda ports: ports.watch(heard), "starting to watch ports")

    async def ports(self) -> Mapping[int, SwitchPort]:
        """The ports of the bridge by their OpenFlow number.  Raises SwitchError."""
        return await self._ask_ports(lambda ports: ports.read(), "reading ports")

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        """Keep ports out of NORMAL's flooding, or let them in again; ports that are gone are skipped.

        The flag is lost when ovs-vswitchd restarts.  Raises SwitchError.
        """
        if ofports:
            await self._ask_ports(lambda ports: ports.set_no_flood(ofports, on=on), "setting no-flood")

    async def forget_macs(self) -> None:
        """Let the bridge forget the MAC addresses it has learned; it learns them again.  Raises SwitchError."""
        path = self._connected().path
        control = control_socket(rundir=path.parent)
        await _timed(unixctl(control, "fdb/flush", path.stem), f"{control}: forgetting MAC addresses", self._timeout)

    async def shows_fragment_ports(self) -> bool:
        """Whether flows see the ports of first fragments.  Raises SwitchError."""
        handling = await self._ask(_fragment_handling, "reading the configuration")
        return handling == wire.FRAGMENTS_NX_MATCH

    async def show_fragment_ports(self, *, on: bool) -> None:
        """Let flows see the ports of first fragments, or go back to the default.  Raises SwitchError.

        Like NO_FLOOD, this is lost when ovs-vswitchd restarts.
        """
        wanted = wire.FRAGMENTS_NX_MATCH if on else wire.FRAGMENTS_NORMAL

        async def set_and_look(connection: Connection) -> int:
            await connection.send([wire.set_config(wanted, connection.xids())])
            # The switch answers nothing when all is well, so look.
            return await _fragment_handling(connection)

        if await self._ask(set_and_look, "setting the configuration") != wanted:
            raise SwitchError(
                "the switch did not take how fragments are to be shown; is another controller setting it?"
            )

    async def connections(self, zones: Collection[int], *, counters: bool = False) -> list[Tracked]:
        """Every connection in some zones; see `Conntrack.read`.  Raises SwitchError."""
        return await self._conntrack().read(zones, counters=counters)

    async def forget_connections(self, entries: Collection[Tracked]) -> None:
        """Let conntrack forget connections, one by one.  Raises SwitchError."""
        await self._conntrack().forget(entries)

    async def remark(self, entries: Collection[Tracked], *, blocked: bool) -> None:
        """Block connections, or let them live again; those that are gone are skipped.

        Returns when it has been done; the flows of table `remark` must be installed.  Raises SwitchError.
        """
        alike = lru_cache(lambda zone, helped: encode_actions(remark_actions(zone, blocked=blocked, helped=helped)))
        await self._show(entries, lambda entry: alike(entry.zone, entry.is_helped))

    async def take_over(self, entries: Collection[Tracked]) -> None:
        """Write the mark and label of each into the connection, unless it has a mark by now.

        As with `remark`; connections of which no packet can be made up are skipped, too.  Raises SwitchError.
        """
        await self._show(entries, lambda entry: encode_actions(take_over_actions(entry)))

    async def _show(self, entries: Iterable[Tracked], actions: Callable[[Tracked], bytes]) -> None:
        """Show conntrack a packet of each connection."""
        packets = ((entry, answer_of(entry.key)) for entry in entries)
        made = [(packet, actions(entry)) for entry, packet in packets if packet]
        if made:
            seconds = self._timeout + len(made) * SECONDS_PER_FLOW
            await self._ask(lambda connection: _packets(connection, made), "marking connections", seconds)

    async def settled(self) -> None:
        """Wait until no packet is dealt with by flows that are gone; see `Conntrack.settled`.  Raises SwitchError."""
        await self._conntrack().settled()

    def _conntrack(self) -> Conntrack:
        path = self._connected().path
        return Conntrack(path.parent, path.stem)

    async def connection_limits(self) -> dict[int, int]:
        """The limits of conntrack zones that have one, of the bridge's whole datapath.  Raises SwitchError."""
        return await limits.read(self._connected().path)

    async def limit_connections(self, wanted: Mapping[int, int | None]) -> None:
        """Set limits of conntrack zones, or lift them (None); lost when the userspace datapath restarts.

        Raises SwitchError.
        """
        await limits.write(self._connected().path, wanted)

    def _connected(self) -> Connection:
        if self._connection is None:
            raise SwitchError("not connected to a bridge")
        return self._connection

    async def _ask(self, work: Callable[[Connection], Awaitable[T]], what: str, seconds: float | None = None) -> T:
        """Take a turn; on any failure both connections are closed."""
        async with self._turn:
            connection = self._connected()
            try:
                return await _timed(work(connection), f"{connection.path}: {what}", seconds or self._timeout)
            except BaseException:
                connection.close()
                raise

    async def _ask_ports(self, work: Callable[[Ports], Awaitable[T]], what: str) -> T:
        """The same with what only OpenFlow 1.0 knows of ports."""
        async with self._turn_at_ports:
            connection = self._connected()

            async def ask() -> T:
                return await work(await self._port_link(connection))

            try:
                return await _timed(ask(), f"{connection.path}: {what}", self._timeout)
            except BaseException:
                connection.close()
                raise

    async def _port_link(self, connection: Connection) -> Ports:
        """The link that belongs to a connection; both end together."""
        if connection.broken:
            raise SwitchError(connection.broken)
        if self._ports is None:
            link = await Connection.open(connection.path, port.VERSION)
            link.ended, connection.ended = connection.close, link.close
            if self._connection is not connection or not self.is_open:
                link.close()
                raise SwitchError(f"{connection.path}: the connection was lost meanwhile")
            self._ports = Ports(link)
        return self._ports


async def _timed(work: Awaitable[T], what: str, seconds: float) -> T:
    try:
        return await within(work, seconds)
    except asyncio.TimeoutError:
        raise SwitchError(f"{what}: no answer within {seconds:.1f} s; it may have been done all the same") from None
    except wire.WireError as error:
        raise SwitchError(f"{what}: the switch sent nonsense: {error}") from None


async def _fragment_handling(connection: Connection) -> int:
    xid = connection.xids()
    await connection.send([wire.config_request(xid)])
    return wire.fragment_handling(await connection.reply(xid))


async def _bundle(connection: Connection, diff: Diff) -> None:
    """Send a bundle, and commit it if every flow in it was taken.

    A switch commits the rest of a bundle of which it has refused a part, so the barrier before the commit brings all
    refusals to light first.
    """
    adds = [*(desired for _, desired in diff.changes), *diff.adds]
    opening = connection.xids(len(diff) + 3)
    first, barrier, ending = opening + 1, opening + 1 + len(diff), opening + 2 + len(diff)
    await connection.send(
        chain(
            [wire.bundle_control(opening, BundleStep.OPEN, opening)],
            wire.bundle_adds(opening, diff.deletes, adds, first),
            [wire.barrier(barrier)],
        )
    )
    refusals = await _refusals(connection, barrier)
    step = BundleStep.DISCARD if refusals else BundleStep.COMMIT
    await connection.send([wire.bundle_control(opening, step, ending)])
    refusals += await _refusals(connection, ending)
    if refusals:
        flows = (*diff.deletes, *adds)
        raise SwitchError(f"{connection.path}: nothing was changed: {_explain(refusals, flows, first)}")


async def _packets(connection: Connection, made: list[tuple[bytes, bytes]]) -> None:
    """Send packets with their instructions, and wait until the switch has dealt with them."""
    first = connection.xids(len(made) + 1)
    numbered = enumerate(made, first)
    await connection.send(
        chain(
            (wire.packet_out(packet, what, xid) for xid, (packet, what) in numbered), [wire.barrier(first + len(made))]
        )
    )
    refusals = await _refusals(connection, first + len(made))
    if refusals:
        raise SwitchError(f"{connection.path}: the switch refused a packet ({refusals[0].name})")


async def _refusals(connection: Connection, until: int) -> list[wire.Refusal]:
    """Errors that come before, or as, the answer to the message `until`."""
    refusals = []
    while True:
        message = await connection.receive()
        if message.type == ofproto.OFPT_ERROR:
            refusals.append(wire.refusal(message))
        if message.xid == until:
            return refusals


def _explain(refusals: list[wire.Refusal], flows: tuple[Flow, ...], first: int) -> str:
    """The first refused flow and its error; how many more; or the error alone when it is about the bundle."""
    blamed = [refusal for refusal in refusals if first <= refusal.xid < first + len(flows)]
    if not blamed:
        return f"the switch refused the bundle ({refusals[0].name})"
    more = f" and {len(blamed) - 1} more" if len(blamed) > 1 else ""
    return f"the switch refused a flow ({blamed[0].name}){more}: {format_flow(flows[blamed[0].xid - first])}"
