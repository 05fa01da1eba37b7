"""A steady stream of numbered packets between two machines, and what became of them.

    python3 -I stream.py serve ADDRESS PORT                       echo UDP and TCP, until ended
    python3 -I stream.py send udp|tcp SOURCE DESTINATION PORT [SECONDS]
                      a packet every 10 ms, or after so many seconds each, until standard input ends

`send` prints as JSON {"sent": how many, "answered": how many came back, "losses": [[from, to, packets], ...]}: the
times (of time.monotonic()) between which packets were sent of which none came back.  For answers to the last it waits a
second, and longer with TCP, which sends again by itself.  Runs on the standard library alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from itertools import groupby
from typing import Any, cast

EVERY = 0.01
PATIENCE = {"udp": 1.0, "tcp": 15.0}
DIGITS = 10
# A reader that the machine lets wait must not lose what the network has delivered.
RECEIVE_BUFFER = 1 << 22
_SO_RCVBUFFORCE = 33


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401
        """Answer."""
        self._transport.sendto(data, addr)


class Answers:
    """Which numbers have come back."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Numbers of a fixed size, which may be cut anywhere."""
        data = self._rest + data
        whole = len(data) // DIGITS * DIGITS
        self.seen.update(int(data[at : at + DIGITS]) for at in range(0, whole, DIGITS))
        self._rest = data[whole:]

    def losses(self, sent: list[float]) -> list[tuple[float, float, int]]:
        """Runs of numbers that are missing, by when each was sent."""
        missing = [number for number in range(len(sent)) if number not in self.seen]
        runs = groupby(enumerate(missing), lambda each: each[1] - each[0])
        numbers = ([number for _, number in run] for _, run in runs)
        return [(sent[run[0]], sent[run[-1]], len(run)) for run in numbers]


class UdpAnswers(asyncio.DatagramProtocol):
    """Feeds what comes back."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def datagram_received(self, data: bytes, _addr: Any) -> None:  # noqa: ANN401
        """Note it."""
        self._answers.feed(data)


async def serve(address: str, port: int) -> None:
    """Echo until ended."""
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(UdpEcho, (address, port))
    _enlarge(udp)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(data)

    server = await asyncio.start_server(echo, address, port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()
    udp.close()


async def send(kind: str, source: str, far: tuple[str, int], every: float = EVERY) -> None:
    """Send until standard input ends, then print."""
    answers = Answers()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    reading: asyncio.Task[None] | None = None
    if kind == "udp":
        udp, _ = await loop.create_datagram_endpoint(lambda: UdpAnswers(answers), (source, 0), far)
        _enlarge(udp)
        write: Callable[[bytes], None] = udp.sendto
    else:
        reader, writer = await asyncio.open_connection(*far, local_addr=(source, 0))
        reading = asyncio.create_task(_read(reader, answers))
        write = writer.write
    print("ready", flush=True)
    sent: list[float] = []
    start = time.monotonic()
    while not ended.is_set():
        write(f"{len(sent):0{DIGITS}}".encode())
        sent.append(time.monotonic())
        await asyncio.sleep(max(0.0, start + len(sent) * every - sent[-1]))
    deadline = time.monotonic() + PATIENCE[kind]
    while len(answers.seen) < len(sent) and time.monotonic() < deadline:  # noqa: ASYNC110 - a condition of any kind
        await asyncio.sleep(EVERY)
    if reading is not None:
        reading.cancel()
    found = {"sent": len(sent), "answered": len(answers.seen), "losses": answers.losses(sent)}
    print(json.dumps(found), flush=True)


def _enlarge(udp: asyncio.DatagramTransport) -> None:
    udp.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)


async def _read(reader: asyncio.StreamReader, answers: Answers) -> None:
    while data := await reader.read(1000):
        answers.feed(data)


def main() -> None:
    """See above."""
    verb, *words = sys.argv[1:]
    if verb == "serve":
        asyncio.run(serve(words[0], int(words[1])))
    else:
        kind, source, destination, port, *every = words
        asyncio.run(send(kind, source, (destination, int(port)), *map(float, every)))


if __name__ == "__main__":
    main()
