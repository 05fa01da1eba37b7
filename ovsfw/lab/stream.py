"""A steady stream of numbered packets between two machines, and what became of them.

    python3 -I stream.py serve ADDRESS PORT                       echo UDP and TCP, until ended
    python3 -I stream.py send udp|tcp SOURCE DESTINATION PORT     a packet every 10 ms, until standard input ends

`send` prints {"sent", "answered", "longest_gap"} as JSON: how many were sent, how many came back within a second after
the last, and the longest time in seconds between two answers.  Runs on the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any, cast

EVERY = 0.01
PATIENCE = 1.0
DIGITS = 10


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401
        """Answer."""
        self._transport.sendto(data, addr)


class Answers:
    """Which numbers have come back, and when the last did."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.longest_gap = 0.0
        self._last = time.monotonic()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Numbers of a fixed size, which may be cut anywhere."""
        now = time.monotonic()
        self.longest_gap, self._last = max(self.longest_gap, now - self._last), now
        data = self._rest + data
        whole = len(data) // DIGITS * DIGITS
        self.seen.update(int(data[at : at + DIGITS]) for at in range(0, whole, DIGITS))
        self._rest = data[whole:]


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

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)

    server = await asyncio.start_server(echo, address, port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()
    udp.close()


async def send(kind: str, source: str, far: tuple[str, int]) -> None:
    """Send until standard input ends, then print."""
    answers = Answers()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    reading: asyncio.Task[None] | None = None
    if kind == "udp":
        udp, _ = await loop.create_datagram_endpoint(lambda: UdpAnswers(answers), (source, 0), far)
        write: Callable[[bytes], None] = udp.sendto
    else:
        reader, writer = await asyncio.open_connection(*far, local_addr=(source, 0))
        reading = asyncio.create_task(_read(reader, answers))
        write = writer.write
    print("ready", flush=True)
    sent, start = 0, time.monotonic()
    while not ended.is_set():
        write(f"{sent:0{DIGITS}}".encode())
        sent += 1
        await asyncio.sleep(max(0.0, start + sent * EVERY - time.monotonic()))
    deadline = time.monotonic() + PATIENCE
    while len(answers.seen) < sent and time.monotonic() < deadline:  # noqa: ASYNC110 - a condition of any kind
        await asyncio.sleep(EVERY)
    if reading is not None:
        reading.cancel()
    print(json.dumps({"sent": sent, "answered": len(answers.seen), "longest_gap": answers.longest_gap}), flush=True)


async def _read(reader: asyncio.StreamReader, answers: Answers) -> None:
    while data := await reader.read(1000):
        answers.feed(data)


def main() -> None:
    """See above."""
    verb, *words = sys.argv[1:]
    if verb == "serve":
        asyncio.run(serve(words[0], int(words[1])))
    else:
        kind, source, destination, port = words
        asyncio.run(send(kind, source, (destination, int(port))))


if __name__ == "__main__":
    main()
