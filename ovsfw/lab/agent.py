"""The agent inside a machine of the lab: it answers probes, and sends them.

    python3 -I agent.py SOCKET NAME ADDRESS...

Runs on the standard library alone.  Returns when the agent listens on the Unix socket SOCKET; the agent itself goes on
in the background.  A request is one connection: a line of JSON there, a line of JSON back.

    {"do": "listen", "services": [["tcp", 80], ...]}    answer NAME on these ports of every ADDRESS, from now on
    {"do": "probe", "timeout": 0.7, "attempts": 2, "at_once": 16,
     "probes": [[token, "tcp", source, destination, port], ...]}
        "icmp" has no port.  The result of each: {"how", "answer", "source_port"}; "how" is answered, refused, silent
        or the system's word for the error, "answer" is who answered, "source_port" that of the last attempt (of
        an echo request: its identifier).
    {"do": "heard"}    the tokens of the UDP probes that have arrived since this was last asked

A result is {"result": ...}, a failure {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

LINE_LIMIT = 1 << 24
BACKLOG = 1024
# Every probe has a source port of its own, below the ports that the kernel gives away.
SOURCE_PORTS = range(20000, 32768)
ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger, socket(7)


class Banner(asyncio.Protocol):
    """A TCP service that says its name, and leaves closing to the client."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it."""
        cast("asyncio.Transport", transport).write(self._name)


class Echo(asyncio.DatagramProtocol):
    """A UDP service that says its name and remembers what it heard."""

    def __init__(self, name: str, heard: set[str]) -> None:
        self._name = name.encode()
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401
        """Remember and answer."""
        self._heard.add(data.decode(errors="replace"))
        self._transport.sendto(self._name, addr)


class Agent:
    """Its state: what it listens on, what it heard, and the next source port."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self._name = name
        self._addresses = addresses
        self._services: set[tuple[str, int]] = set()
        self._heard: set[str] = set()
        self._keep: list[object] = []
        self._source_ports = itertools.cycle(SOURCE_PORTS)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            request = json.loads(await reader.readline())
            verbs: dict[str, Callable[..., Awaitable[Any]]] = {
                "listen": self.listen, "probe": self.probe, "heard": self.heard,
            }  # fmt: skip
            reply = {"result": await verbs[request.pop("do")](**request)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker must know
            reply = {"error": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()

    async def listen(self, services: list[tuple[str, int]]) -> None:
        """Serve more ports; those that are served already are fine."""
        loop = asyncio.get_running_loop()
        for service in {(protocol, port) for protocol, port in services} - self._services:
            for address in self._addresses:
                kind = socket.SOCK_STREAM if service[0] == "tcp" else socket.SOCK_DGRAM
                sock = _bound(address, service[1], kind, is_service=service[0] == "tcp")
                if service[0] == "tcp":
                    self._keep.append(await loop.create_server(lambda: Banner(self._name), sock=sock, backlog=BACKLOG))
                else:
                    endpoint = await loop.create_datagram_endpoint(lambda: Echo(self._name, self._heard), sock=sock)
                    self._keep.append(endpoint)
            self._services.add(service)

    async def heard(self) -> list[str]:
        """The tokens that arrived; then forget them."""
        tokens = sorted(self._heard)
        self._heard.clear()
        return tokens

    async def probe(self, probes: list[list[Any]], timeout: float, attempts: int, at_once: int) -> list[dict[str, Any]]:
        """Send all probes; not more of them wait for an answer at a time than the asker says."""
        turns = asyncio.Semaphore(at_once)

        async def persist(probe: list[Any]) -> dict[str, Any]:
            async with turns:
                return await self._persist(probe, timeout, attempts)

        return await asyncio.gather(*map(persist, probes))

    async def _persist(self, probe: list[Any], patience: float, attempts: int) -> dict[str, Any]:
        """Try until there is an answer."""
        result: dict[str, Any] = {}
        for _ in range(attempts):
            result = await self._attempt(probe, patience)
            if result["how"] == "answered":
                break
        return result

    async def _attempt(self, probe: list[Any], patience: float) -> dict[str, Any]:
        token, protocol, source, destination, port = probe
        result = {"how": "answered", "answer": "", "source_port": 0}
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        converse = {"tcp": _converse_tcp, "udp": _converse_udp, "icmp": _converse_icmp}[protocol]
        with self._from_new_port(source, kind, icmp=protocol == "icmp") as sock:
            result["source_port"] = sock.getsockname()[1]
            try:
                answer = await asyncio.wait_for(converse(sock, (destination, port), token), patience)
                result["answer"] = answer.decode(errors="replace")
            except (asyncio.TimeoutError, TimeoutError):
                result["how"] = "silent"
            except ConnectionRefusedError:
                result["how"] = "refused"
            except OSError as error:
                result["how"] = error.strerror or str(error)
        if result["how"] not in ("answered", "silent"):
            await asyncio.sleep(patience)  # a neighbour that cannot be found now may be found later
        return result

    def _from_new_port(self, source: str, kind: socket.SocketKind, *, icmp: bool) -> socket.socket:
        """A socket that sends from an address, and from a port that was not used lately."""
        for port in itertools.islice(self._source_ports, len(SOURCE_PORTS)):
            with contextlib.suppress(OSError):  # a service listens there
                return _bound(source, port, kind, icmp=icmp)
        raise OSError(f"no free source port on {source}")


def _bound(
    address: str, port: int, kind: socket.SocketKind, *, icmp: bool = False, is_service: bool = False
) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind, ECHO_PROTOCOL[family] if icmp else 0)
    try:
        sock.setblocking(False)
        # What is left of connections that a filter has cut must not keep a service from its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, is_service)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


async def _converse_tcp(sock: socket.socket, far: tuple[str, int], _token: str) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, far)
    answer = await loop.sock_recv(sock, 100)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    if not answer:
        raise OSError(0, "closed without a word")
    return answer


async def _converse_udp(sock: socket.socket, far: tuple[str, int], token: str) -> bytes:
    loop = asyncio.get_running_loop()
    sock.connect(far)
    await loop.sock_sendall(sock, token.encode())
    return await loop.sock_recv(sock, 100)


async def _converse_icmp(sock: socket.socket, far: tuple[str, int], token: str) -> bytes:
    """An echo request; nobody says a name, the kernel answers."""
    loop = asyncio.get_running_loop()
    sock.connect((far[0], 0))
    # The kernel fills in checksum and identifier (icmp(7)).
    request = struct.pack("!BBHHH", ECHO_REQUEST[sock.family], 0, 0, 0, 1) + token.encode()
    await loop.sock_sendall(sock, request)
    while not (await loop.sock_recv(sock, 1000)).endswith(token.encode()):
        pass
    return b""


async def serve(listener: socket.socket, agent: Agent) -> None:
    """Answer requests until the process is ended."""
    server = await asyncio.start_unix_server(agent.answer, sock=listener, limit=LINE_LIMIT)
    await server.serve_forever()


def main() -> None:
    """Listen, then go to the background."""
    path, name, *addresses = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    if os.fork():
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    asyncio.run(serve(listener, Agent(name, addresses)))


if __name__ == "__main__":
    main()
