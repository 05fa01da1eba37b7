"""What the channel does when the other side is slow, silent or wrong: things a real switch cannot be asked to be."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ovsfw.errors import SwitchError
from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import flow
from ovsfw.switch.channel import Channel
from ovsfw.switch.connection import Connection

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHANGE = Diff(adds=(flow(1, 1, (), (), 1),))


def run(directory: Path, peer: Peer, client: Callable[[Path], Awaitable[None]]) -> None:
    """Let a client talk to a peer that says hello and then does as it is told."""
    path = directory / "br-int.mgmt"

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.hello(1))
        await reader.readexactly(16)
        await peer(reader, writer)
        writer.close()

    async def both() -> None:
        async with await asyncio.start_unix_server(greet, str(path)):
            await asyncio.wait_for(client(path), 20)

    asyncio.run(both())


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def leaving(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(24)


def test_an_echo_request_is_answered_while_nothing_else_happens(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def probing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.message(ofproto.OFPT_ECHO_REQUEST, 0, b"alive?"))
        assert await reader.readexactly(14) == wire.message(ofproto.OFPT_ECHO_REPLY, 0, b"alive?")
        answered.set()

    async def client(path: Path) -> None:
        channel = Channel()
        await channel.connect(path)
        await answered.wait()
        channel.close()

    run(tmp_path, probing, client)


def test_silence_is_an_error_that_does_not_claim_that_nothing_was_done(tmp_path: Path) -> None:
    async def client(path: Path) -> None:
        channel = Channel(timeout=1)
        await channel.connect(path)
        with pytest.raises(SwitchError, match=r"\+1 -0 ~0 flows.*no answer within 1\.0 s; it may have been done"):
            await channel.apply(CHANGE)
        assert not channel.is_open

    run(tmp_path, silent, client)


def test_a_connection_that_ends_amid_a_bundle_is_an_error(tmp_path: Path) -> None:
    async def client(path: Path) -> None:
        channel = Channel()
        await channel.connect(path)
        with pytest.raises(SwitchError, match=r"closed the connection|the connection broke"):
            await channel.apply(CHANGE)
        assert not channel.is_open
        with pytest.raises(SwitchError, match=r"closed the connection|the connection broke"):
            await channel.dump_flows()

    run(tmp_path, leaving, client)


def test_cancelling_a_request_closes_the_channel(tmp_path: Path) -> None:
    """Nobody can know how far it got."""

    async def client(path: Path) -> None:
        channel = Channel()
        await channel.connect(path)
        task = asyncio.create_task(channel.apply(CHANGE))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not channel.is_open

    run(tmp_path, silent, client)


@pytest.mark.parametrize(
    ("nonsense", "said"),
    [
        (struct.pack("!BBHI", 5, 19, 3, 1), "a message of 3 bytes cannot be"),
        (wire.message(ofproto.OFPT_MULTIPART_REPLY, 2, struct.pack("!HH4xH", 1, 0, 9)), "a flow of 9 bytes cannot be"),
        (wire.message(ofproto.OFPT_ERROR, 2, b"\0\1\0\2"), r"refused a request \(OFPBRC_BAD_MULTIPART\)"),
    ],
)
def test_nonsense_from_the_switch_is_an_error_of_the_switch(tmp_path: Path, nonsense: bytes, said: str) -> None:
    async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(56)
        writer.write(nonsense)
        await reader.read(-1)

    async def client(path: Path) -> None:
        channel = Channel()
        await channel.connect(path)
        with pytest.raises(SwitchError, match=said):
            await channel.dump_flows()
        assert not channel.is_open

    run(tmp_path, babbling, client)


def test_transaction_ids_start_again_before_they_run_out(tmp_path: Path) -> None:
    async def client(path: Path) -> None:
        connection = await Connection.open(path)
        first = connection.xids()
        connection.xids(wire.MAX_XID - first - 10)
        assert connection.xids(10) > wire.MAX_XID - 20
        assert connection.xids(5) == 1
        connection.close()

    run(tmp_path, silent, client)


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(SwitchError, match="too long"):
        asyncio.run(Channel().connect(tmp_path / ("x" * 120) / "br-int.mgmt"))


def test_a_switch_that_hangs_up_before_hello_is_asked_again(tmp_path: Path) -> None:
    """It does when a machine is so busy that a second has passed."""
    path = tmp_path / "br-int.mgmt"
    hang_ups = 2
    came = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came > hang_ups:
            writer.write(wire.hello(1))
            await reader.readexactly(16)
        writer.close()

    async def client() -> None:
        nonlocal came, hang_ups
        async with await asyncio.start_unix_server(greet, str(path)):
            (await Connection.open(path)).close()
            came, hang_ups = 0, 99
            with pytest.raises(SwitchError, match=r"closed the connection|the connection broke"):
                await Connection.open(path)
            assert came == 3

    asyncio.run(asyncio.wait_for(client(), 20))
