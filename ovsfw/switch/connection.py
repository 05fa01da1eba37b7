"""One OpenFlow connection: hello, echo, messages in and out.  What is said over it is other modules' business."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ovsfw.errors import SwitchError
from ovsfw.openflow import wire
from ovsfw.openflow.codec import ofproto
from ovsfw.switch import rundir

_READ_SIZE = 1 << 18
# Written in pieces of about this size, so that a large bundle needs neither its size in memory nor blocks the loop.
_WRITE_SIZE = 1 << 18
_CLOSED = "Open vSwitch closed the connection (it was stopped, or the bridge was deleted)"
_VERSION_NAMES = {1: "OpenFlow10", wire.VERSION: "OpenFlow14"}

# Attempts to agree on a version with a switch that hangs up.
_GREETINGS = 3

T = TypeVar("T")


class _HungUpError(SwitchError):
    """The switch closed a connection before it had greeted."""


class Connection:
    """A connection to the management socket of one bridge, in one version of OpenFlow.

    Its state is `broken`: empty while the stream works, then why it does not.  Broken is for ever; open another.
    `unasked` gets what the switch says by itself (with transaction id 0), at its place in the stream; `ended` is called
    when it breaks.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
        self.path = path
        self.broken = ""
        self.unasked: Callable[[wire.Message], None] = lambda _: None
        self.ended: Callable[[], None] = lambda: None
        self._reader, self._writer = reader, writer
        self._inbox: asyncio.Queue[wire.Message | None] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._xid = 0
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, path: Path, version: int = wire.VERSION) -> Connection:
        """Connect and agree on the version.  Raises SwitchError that says what to do when that cannot be.

        A switch gives whoever connects a second to say hello (lib/rconn.c, timeout_CONNECTING()); on a machine that is
        starved it may be over, so this tries again.
        """
        for _ in range(_GREETINGS - 1):
            with contextlib.suppress(_HungUpError):
                return await cls._open(path, version)
        return await cls._open(path, version)

    @classmethod
    async def _open(cls, path: Path, version: int) -> Connection:
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            raise rundir.unreachable(path, error) from None
        connection = cls(reader, writer, path)
        try:
            await connection._greet(version)
        except BaseException as error:
            hung_up = isinstance(error, SwitchError) and connection.broken
            connection.close()
            if hung_up:
                raise _HungUpError(str(error)) from None
            raise
        return connection

    def close(self) -> None:
        """Close at once; doing it again is fine."""
        self._break("the connection is closed")
        self._listener.cancel()
        self._writer.close()

    def xids(self, count: int = 1) -> int:
        """The first of `count` consecutive transaction ids that nothing on the way has; never 0."""
        if self._xid + count > wire.MAX_XID:
            self._xid = 0
        first = self._xid + 1
        self._xid += count
        return first

    async def send(self, messages: Iterable[bytes]) -> None:
        """Write, and go on when the switch has taken most of it.  Answers are read meanwhile, so nothing jams."""
        chunk: list[bytes] = []
        size = 0
        for data in messages:
            chunk.append(data)
            size += len(data)
            if size >= _WRITE_SIZE:
                await self._write(chunk)
                chunk, size = [], 0
        await self._write(chunk)

    async def receive(self) -> wire.Message:
        """The next message that is not an echo.  Raises SwitchError when there will be none."""
        message = None if self.broken and self._inbox.empty() else await self._inbox.get()
        if message is None:
            raise SwitchError(self.broken)
        return message

    async def lost(self) -> str:
        """Wait until the connection is broken, and say why."""
        await self._lost.wait()
        return self.broken

    async def answer(self, xid: int) -> wire.Message:
        """The next message with this xid, which may be an ERROR; others are stale and dropped."""
        message = await self.receive()
        while message.xid != xid:
            message = await self.receive()
        return message

    async def reply(self, xid: int) -> wire.Message:
        """The same; raises SwitchError for an ERROR."""
        message = await self.answer(xid)
        if message.type == ofproto.OFPT_ERROR:
            raise SwitchError(f"{self.path}: the switch refused a request ({wire.refusal(message).name})")
        return message

    async def gather(
        self,
        request: Callable[[int], bytes],
        parse: Callable[[wire.Message], Iterable[T]],
        has_more: Callable[[wire.Message], bool] = wire.has_more,
    ) -> list[T]:
        """Everything in all parts of the answer to a request, which is made for its xid.  Raises SwitchError."""
        xid = self.xids()
        await self.send([request(xid)])
        found: list[T] = []
        more = True
        while more:
            answer = await self.reply(xid)
            found.extend(parse(answer))
            more = has_more(answer)
        return found

    async def _write(self, chunk: list[bytes]) -> None:
        if self.broken:
            raise SwitchError(self.broken)
        self._writer.write(b"".join(chunk))
        try:
            await self._writer.drain()
        except OSError:
            self._break(_CLOSED)
            raise SwitchError(self.broken) from None

    async def _greet(self, version: int) -> None:
        await self.send([wire.hello(self.xids(), version)])
        answer = await self.receive()
        if answer.type != ofproto.OFPT_HELLO or not wire.offers(answer, version):
            name, bridge = _VERSION_NAMES[version], self.path.stem
            raise SwitchError(
                f"bridge {bridge} does not speak {name}; allow it with: ovs-vsctl add bridge {bridge} protocols {name}"
            )

    async def _listen(self) -> None:
        """Read until the end; answer echoes, queue the rest."""
        framer = wire.Framer()
        reason = _CLOSED
        try:
            while data := await self._reader.read(_READ_SIZE):
                for message in framer.feed(data):
                    self._sort(message)
        except (OSError, wire.WireError) as error:
            reason = f"the connection broke: {error}"
        finally:
            self._break(reason)
            self._writer.close()

    def _sort(self, message: wire.Message) -> None:
        if message.type == ofproto.OFPT_ECHO_REQUEST:
            self._writer.write(wire.echo_reply(message))
        elif message.xid == 0 and message.type not in (ofproto.OFPT_HELLO, ofproto.OFPT_ERROR):
            self.unasked(message)
        else:
            self._inbox.put_nowait(message)

    def _break(self, why: str) -> None:
        """Note the first reason, and wake whoever waits."""
        if not self.broken:
            self.broken = f"{self.path}: {why}"
            self._inbox.put_nowait(None)
            self._lost.set()
            self.ended()
