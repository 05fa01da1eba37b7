"""Makes the agents of this host's machines reachable for the other host of a lab.

    python3 -I relay.py ADDRESS PORT PEER DIRECTORY

Listens on ADDRESS, for PEER and for this host itself alone.  The first line of a connection is the name of a machine;
all else goes to and from its agent in DIRECTORY.  The name `switch` is answered with the connections of this host's
conntrack, as {"result": ...}.  Writes its pid to DIRECTORY/relay.pid and returns when it listens; it goes on in the
background.  Runs on the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

BACKLOG = 1024
CHUNK = 1 << 16
SWITCH = "switch"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what comes."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


def _connections() -> bytes:
    command = ("ovs-appctl", "dpctl/dump-conntrack")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reply = {"error": done.stderr.strip()} if done.returncode else {"result": done.stdout}
    return json.dumps(reply).encode() + b"\n"


class Relay:
    """Who may ask, and where the agents are."""

    def __init__(self, directory: Path, friends: tuple[str, ...]) -> None:
        self._directory = directory
        self._friends = friends

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            if writer.get_extra_info("peername")[0] in self._friends:
                await self._answer((await reader.readline()).decode().strip(), reader, writer)
        except OSError as error:
            writer.write(json.dumps({"error": str(error)}).encode() + b"\n")
        finally:
            writer.close()

    async def _answer(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sockets = {path.stem: path for path in self._directory.glob("*.agent")}
        if name == SWITCH:
            writer.write(await asyncio.to_thread(_connections))
        elif name in sockets:
            from_agent, to_agent = await asyncio.open_unix_connection(sockets[name])
            there = asyncio.create_task(_pass_on(reader, to_agent))
            await _pass_on(from_agent, writer)
            there.cancel()
            to_agent.close()
        else:
            writer.write(json.dumps({"error": f"no machine {name} on this host"}).encode() + b"\n")


async def _serve(listener: socket.socket, relay: Relay) -> None:
    server = await asyncio.start_server(relay.serve, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Listen, then go to the background."""
    address, port, peer, directory = sys.argv[1:]
    listener = socket.create_server((address, int(port)), backlog=BACKLOG)
    pid = os.fork()
    if pid:
        Path(directory, "relay.pid").write_text(str(pid))
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    asyncio.run(_serve(listener, Relay(Path(directory), (address, peer))))


if __name__ == "__main__":
    main()
