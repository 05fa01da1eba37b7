"""What is written into the local OVSDB: a bridge's fail_mode, and ports that take the place of others.  RFC 7047."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeAlias

from ovsfw.errors import SwitchError
from ovsfw.waiting import within

TIMEOUT = 10.0
Json: TypeAlias = dict[str, Any]


async def set_secure(db: str, bridge: str) -> None:
    """Let a bridge drop everything while it has no flows.  Raises SwitchError.

    Where no controller is set, the switch drops all flows of the bridge when its fail_mode changes.
    """
    update = {"op": "update", "table": "Bridge", "where": [["name", "==", bridge]], "row": {"fail_mode": "secure"}}
    result = await transact(db, update, what=f"fail_mode of {bridge} cannot be set")
    if not result[0].get("count"):
        raise SwitchError(f"{db}: fail_mode of {bridge} cannot be set: no such bridge")


async def transact(db: str, *operations: Json, what: str) -> list[Json]:
    """All of some operations or none; a result for each.  Raises SwitchError that begins with `what` went wrong."""
    request = {"id": 0, "method": "transact", "params": ["Open_vSwitch", *operations]}
    try:
        reply = await within(_call(db, json.dumps(request)), TIMEOUT)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise SwitchError(f"{db}: {what}: {error or 'no answer'}") from None
    results: list[Json] = [result or {} for result in reply.get("result") or []]
    problems = [result.get("details") or result["error"] for result in results if "error" in result]
    if reply.get("error") or problems:
        raise SwitchError(f"{db}: {what}: {problems[0] if problems else reply['error']}")
    return results


async def _call(db: str, request: str) -> Json:
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
                reply: Json = json.loads(text)
            except ValueError:
                continue
            return reply
        raise ValueError("the database closed the connection")
    finally:
        writer.close()
