"""Commands to a running daemon of Open vSwitch, as `ovs-appctl` gives them.

The protocol is JSON-RPC 1.0 over a stream socket (ovs-appctl(8), lib/unixctl.c).  Open vSwitch's own Python client is
not used because its parser takes minutes for an answer of some megabytes.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.switch import rundir
from ovsfw.waiting import within

TIMEOUT = 30.0
_READ_SIZE = 1 << 18


async def unixctl(socket_path: Path, command: str, *args: str, timeout: float = TIMEOUT) -> str:
    """What the daemon answers.  Raises SwitchError when it is away, refuses, or says nothing for `timeout` seconds."""
    try:
        return await within(_call(socket_path, command, args), timeout)
    except asyncio.TimeoutError:
        raise SwitchError(f"{socket_path}: no answer to {command} within {timeout:.0f} s") from None
    except OSError as error:
        raise rundir.unreachable(socket_path, error) from None


async def _call(socket_path: Path, command: str, args: tuple[str, ...]) -> str:
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    try:
        writer.write(json.dumps({"id": 0, "method": command, "params": args}).encode())
        await writer.drain()
        reply = await _read(reader)
    finally:
        writer.close()
    if reply is None:
        raise SwitchError(f"{socket_path}: the daemon closed the connection instead of answering {command}")
    if reply.get("error") is not None:
        raise SwitchError(f"{command}: {str(reply['error']).strip()}")
    return str(reply["result"])


async def _read(reader: asyncio.StreamReader) -> dict[str, object] | None:
    """One JSON object; None when the stream ends before."""
    data = bytearray()
    while chunk := await reader.read(_READ_SIZE):
        data += chunk
        # Parsing a part is wasted work, so look for what an object ends with.
        if chunk.endswith((b"}", b"}\n")):
            try:
                reply = json.loads(data)
            except ValueError:
                continue
            return dict(reply)
    return None
