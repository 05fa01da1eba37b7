"""The one thing that is written into the local OVSDB: a bridge's fail_mode.  The protocol is RFC 7047."""

from __future__ import annotations

import asyncio
import json

from ovsfw.errors import SwitchError

TIMEOUT = 10.0


async def set_secure(db: str, bridge: str) -> None:
    """Let a bridge drop everything while it has no flows.  Raises SwitchError.

    Where no controller is set, the switch drops all flows of the bridge when its fail_mode changes.
    """
    update = {"op": "update", "table": "Bridge", "where": [["name", "==", bridge]], "row": {"fail_mode": "secure"}}
    request = {"id": 0, "method": "transact", "params": ["Open_vSwitch", update]}
    try:
        reply = await asyncio.wait_for(_call(db, json.dumps(request)), TIMEOUT)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise SwitchError(f"{db}: fail_mode cannot be set: {error or 'no answer'}") from None
    results = reply.get("result") or [{}]
    problem = reply.get("error") or results[-1].get("error")
    if problem or not results[0].get("count"):
        raise SwitchError(f"{db}: fail_mode of {bridge} cannot be set: {problem or 'no such bridge'}")


async def _call(db: str, request: str) -> dict[str, list[dict[str, object]]]:
    kind, _, address = db.partition(":")
    if kind == "unix":
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(request.encode())
        text = ""
        while data := await reader.read(1 << 16):
            text += data.decode()
            try:
                reply: dict[str, list[dict[str, object]]] = json.loads(text)
            except ValueError:
                continue
            return reply
        raise ValueError("the database closed the connection")
    finally:
        writer.close()
