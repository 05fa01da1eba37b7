"""Copies of packets, over a connection of their own: a reader that is slow, or a flood, hurts no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.openflow import packet_in, wire
from ovsfw.openflow.action import Output, encode_actions
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.switch.connection import Connection

# Copies that wait to be read.
WAITING = 1000


class MeterRefusedError(SwitchError):
    """The switch is there, but its datapath has no meters, or no such ones."""


async def add_meters(path: Path, meters: Iterable[int], rate: int, burst: int, *, change: bool = False) -> None:
    """Make sure that meters exist, and with `change` that they are such; they are lost when ovs-vswitchd restarts.

    Raises SwitchError; MeterRefusedError when trying again is no use.
    """
    connection = await Connection.open(path)
    try:
        for meter in meters:
            await connection.send([packet_in.add_meter(meter, rate, burst, connection.xids())])
            if change:
                await connection.send([packet_in.change_meter(meter, rate, burst, connection.xids())])
        barrier = connection.xids()
        await connection.send([wire.barrier(barrier)])
        while (answer := await connection.receive()).xid != barrier:
            if answer.type == ofproto.OFPT_ERROR and (said := wire.refusal(answer)).name != packet_in.METER_EXISTS:
                raise MeterRefusedError(f"{path}: the switch refused a meter ({said.name})")
    finally:
        connection.close()


async def packets(path: Path, controller: int, length: int) -> AsyncIterator[PacketIn]:
    """The copies that flows send to a controller, at most `length` bytes each, until the connection is lost.

    What comes faster than it is read is lost, should somebody take the meters away.  Raises SwitchError at the end.
    """
    connection = await Connection.open(path)
    inbox: asyncio.Queue[wire.Message] = asyncio.Queue(WAITING)

    def take(message: wire.Message) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            inbox.put_nowait(message)

    connection.unasked = take
    try:
        asked = connection.xids()
        await connection.send([wire.config_request(asked)])
        fragments = wire.fragment_handling(await connection.reply(asked))
        await connection.send(packet_in.subscription(controller, fragments, length, connection.xids(3)))
        async for message in _until_lost(connection, inbox):
            found = packet_in.read_packet_in(message)
            if found is not None:
                yield found
    finally:
        connection.close()


async def send(connection: Connection, packet: bytes, port: int) -> None:
    """Let a packet out of a port; returns when that is done, also where the port is gone.  Raises SwitchError."""
    first = connection.xids(2)
    out = wire.packet_out(packet, encode_actions((Output(port),)), first)
    await connection.send([out, wire.barrier(first + 1)])
    await connection.answer(first + 1)


async def _until_lost(connection: Connection, inbox: asyncio.Queue[wire.Message]) -> AsyncIterator[wire.Message]:
    """What comes unasked.  Raises SwitchError when the connection is lost."""
    lost = asyncio.create_task(connection.lost())
    try:
        while True:
            coming = asyncio.create_task(inbox.get())
            await asyncio.wait({coming, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                raise SwitchError(lost.result())
            yield coming.result()
    finally:
        lost.cancel()
