"""Ports of a bridge as OVSDB has them, and one port in the place of another: same identity, VLAN and OpenFlow number.

Columns: vswitchd.conf.db(5).  Values are in the notation of RFC 7047, section 5.1.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from ovsfw.errors import SwitchError
from ovsfw.switch.transact import Json, transact

# Seconds until a new port must have its number.
PATIENCE = 10.0
_PAUSE = 0.02
_PORT_COLUMNS = ("tag", "trunks", "vlan_mode", "other_config", "external_ids")


class Plugged(NamedTuple):
    """A port with an iface-id: `row` is its Port, `ids` the external_ids of its interface."""

    name: str
    ofport: int
    vlan: int
    ids: dict[str, str]
    row: Json


async def plugged(db: str, bridge: str) -> list[Plugged]:
    """Every port of a bridge that has an iface-id and a number, by name.  Raises SwitchError."""
    wrong = f"the ports of {bridge} cannot be read"
    found = await transact(
        db,
        _select("Bridge", [["name", "==", bridge]], "ports"),
        _select("Port", [], "_uuid", "name", "interfaces", *_PORT_COLUMNS),
        _select("Interface", [], "_uuid", "name", "ofport", "external_ids"),
        what=wrong,
    )
    bridges, ports, interfaces = (result["rows"] for result in found)
    if not bridges:
        raise SwitchError(f"{db}: {wrong}: no such bridge")
    here = {uuid for _, uuid in _elements(bridges[0]["ports"])}
    by_id = {row["_uuid"][1]: row for row in interfaces}
    made = []
    for row in ports:
        uuids = [uuid for _, uuid in _elements(row["interfaces"])]
        if row["_uuid"][1] in here and len(uuids) == 1:
            interface = by_id[uuids[0]]
            ids, ofport = dict(interface["external_ids"][1]), _number(interface["ofport"])
            if "iface-id" in ids and ofport > 0:
                made.append(Plugged(row["name"], ofport, _number(row["tag"]), ids, row))
    return sorted(made, key=lambda each: each.name)


async def replace(db: str, bridge: str, old: Plugged, name: str, ids: dict[str, str]) -> None:
    """Let a network device take the place of a port, in one transaction; `ids` are its external_ids.

    Returns when the switch has it under the old number.  Raises SwitchError; then the new port may be there or not.
    """
    wrong = f"{name} cannot take the place of {old.name}"
    interface = {"name": name, "external_ids": ["map", sorted(ids.items())], "ofport_request": old.ofport}
    port = {"name": name, "interfaces": ["named-uuid", "interface"], **{key: old.row[key] for key in _PORT_COLUMNS}}
    await transact(
        db,
        {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
        {"op": "insert", "table": "Port", "row": port, "uuid-name": "port"},
        {
            "op": "mutate",
            "table": "Bridge",
            "where": [["name", "==", bridge]],
            "mutations": [
                ["ports", "delete", ["set", [old.row["_uuid"]]]],
                ["ports", "insert", ["set", [["named-uuid", "port"]]]],
            ],
        },
        _next_configuration(),
        what=wrong,
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        read = await transact(db, _select("Interface", [["name", "==", name]], "ofport", "error"), what=wrong)
        row: Json = read[0]["rows"][0] if read[0]["rows"] else {}
        problem = row.get("error")
        if isinstance(problem, str):
            raise SwitchError(f"{wrong}: {problem}")
        ofport = _number(row.get("ofport", 0))
        if ofport == old.ofport:
            return
        if time.monotonic() > deadline:
            raise SwitchError(f"{wrong}: the switch gave it the number {ofport} in the place of {old.ofport}")
        await asyncio.sleep(_PAUSE)


def _select(table: str, where: list[object], *columns: str) -> Json:
    return {"op": "select", "table": table, "where": where, "columns": list(columns)}


def _next_configuration() -> Json:
    """As ovs-vsctl does, so that who waits for it sees that something was configured."""
    return {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}


def _elements(value: list[object]) -> list[list[str]]:
    """A set; one element may stand alone."""
    return value[1] if value[0] == "set" else [value]  # type: ignore[return-value, list-item]


def _number(value: object) -> int:
    """An optional number; 0 for none."""
    return value if isinstance(value, int) else 0
