"""What is plugged into the bridges of this host, from the local OVSDB; only read.

Columns and their meaning: vswitchd.conf.db(5).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from ovsfw.compiler.bindings import Binding, Bindings, Uplink, VlanMode
from ovsfw.errors import SwitchError
from ovsfw.switch import rundir
from ovsfw.switch.idl import Replica, references

TIMEOUT = 10.0
OLDEST = (2, 17)

_STRING = {"type": "string"}
_MAYBE_STRING = {"type": {"key": "string", "min": 0}}
_MAYBE_INTEGER = {"type": {"key": "integer", "min": 0}}
_STRINGS = {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}


def _rows_of(table: str) -> dict[str, object]:
    return {"type": {"key": {"type": "uuid", "refTable": table}, "min": 0, "max": "unlimited"}}


# The part of Open vSwitch's schema that is read, so that nothing else is sent here.
_SCHEMA: dict[str, object] = {
    "name": "Open_vSwitch",
    "version": "8.0.0",
    "tables": {
        "Open_vSwitch": {"columns": {"bridges": _rows_of("Bridge"), "ovs_version": _MAYBE_STRING}},
        "Bridge": {"columns": {"name": _STRING, "ports": _rows_of("Port"), "fail_mode": _MAYBE_STRING}},
        "Port": {
            "columns": {
                "name": _STRING,
                "interfaces": _rows_of("Interface"),
                "tag": _MAYBE_INTEGER,
                "vlan_mode": _MAYBE_STRING,
            }
        },
        "Interface": {"columns": {"name": _STRING, "ofport": _MAYBE_INTEGER, "external_ids": _STRINGS}},
    },
}

# OVSDB writes OpenFlow 1.0 numbers of 16 bits; from 1.1 on the reserved ones are the highest of 32 bits.
_FIRST_RESERVED, _RESERVED_OFFSET = 0xFF00, 0xFFFF0000


class Ovsdb:
    """A live copy of what OVSDB says about bridges and ports.

    It survives a restart of ovsdb-server: until then what was last known stands.
    """

    def __init__(self) -> None:
        self._replica: Replica | None = None
        self._plugged: dict[UUID, _Plugged] = {}
        self._snapshot: tuple[Any, Bindings] | None = None

    async def connect(self, db: str = "", timeout: float = TIMEOUT) -> None:
        """Connect (`db` as in `ovs-vsctl --db`, empty for the local one) and wait for the first whole copy.

        Raises SwitchError when that takes longer than `timeout` seconds, or Open vSwitch is away or too old.
        """
        self.close()
        self._plugged, self._snapshot = {}, None
        db = db or rundir.default_database()
        await _reach(db)
        self._replica = Replica(db, _SCHEMA)
        try:
            await self._replica.synced(timeout)
            self._refuse_old()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop at once; doing it again is fine."""
        if self._replica is not None:
            self._replica.close()

    @property
    def is_closed(self) -> bool:
        """Whether the copy will never be new again: it was closed, or its client has failed."""
        return self._replica is None or self._replica.is_closed

    @property
    def is_connected(self) -> bool:
        """Whether what is known is what the database says now; otherwise it is what it said last."""
        return self._replica is not None and self._replica.is_connected

    @property
    def changed(self) -> asyncio.Event:
        """Set whenever something here may have changed; who waits for it clears it."""
        return self._copy().changed

    @property
    def link_changed(self) -> asyncio.Event:
        """Set whenever the database has gone away or come back; who waits for it clears it."""
        return self._copy().link_changed

    @property
    def ovs_version(self) -> str:
        """The version of Open vSwitch as its start script noted it; empty when it was started without that."""
        return next((_one(row.ovs_version) or "" for row in self._copy().rows("Open_vSwitch")), "")

    def bridges(self) -> list[str]:
        """Names of the bridges, sorted."""
        return sorted(row.name for row in self._copy().rows("Bridge"))

    def fail_mode(self, bridge: str) -> str:
        """`secure` or `standalone`.  Raises SwitchError when there is no such bridge."""
        return _one(self._bridge(bridge).fail_mode) or "standalone"

    def snapshot(self, bridge: str) -> Bindings:
        """What is plugged into a bridge now; the same object while nothing has changed.

        Raises SwitchError when there is no such bridge.
        """
        row = self._bridge(bridge)
        touched = self._copy().touched()
        if touched or self._snapshot is None or self._snapshot[0] is not row:
            before, now = self._snapshot, self._read(row, touched)
            # Of what is equal nobody need find out again that it is.
            self._snapshot = (row, before[1] if before is not None and before[1] == now else now)
        return self._snapshot[1]

    def _read(self, bridge: Any, touched: set[UUID]) -> Bindings:  # noqa: ANN401
        """Rows that were not touched are not read again: with 500 ports that takes longer than all the rest."""
        before, self._plugged = self._plugged, {}
        for uuid in references(bridge, "ports"):
            known = before.get(uuid)
            if known is None or not touched.isdisjoint(known.rows):
                known = _plugged(self._copy().row("Port", uuid))
            self._plugged[uuid] = known
        found = [each for known in self._plugged.values() for each in known.bindings]
        return Bindings(
            tuple(sorted((each for each in found if isinstance(each, Binding)), key=lambda bound: bound.ofport)),
            tuple(sorted((each for each in found if isinstance(each, Uplink)), key=lambda uplink: uplink.ofport)),
        )

    def _copy(self) -> Replica:
        if self._replica is None:
            raise SwitchError("not connected to OVSDB")
        return self._replica

    def _bridge(self, name: str) -> Any:  # noqa: ANN401 - a row has its columns as attributes
        for row in self._copy().rows("Bridge"):
            if row.name == name:
                return row
        raise rundir.no_bridge(name, self.bridges())

    def _refuse_old(self) -> None:
        version = self.ovs_version
        if version and _release(version) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise SwitchError(f"Open vSwitch {version} is too old: ovsfw needs {oldest} or newer")


async def _reach(db: str) -> None:
    """Raise SwitchError that says why, when nobody listens; the database client itself would only try for ever."""
    kind, _, address = db.partition(":")
    try:
        if kind == "unix":
            _, writer = await asyncio.open_unix_connection(address)
            writer.close()
        elif kind == "tcp":
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
    except OSError as error:
        if kind == "unix":
            raise rundir.unreachable(Path(address), error) from None
        raise SwitchError(f"{db}: cannot connect: {error.strerror or error}") from None


class _Plugged(NamedTuple):
    """What one Port of OVSDB is to the filter, and the rows that say so."""

    rows: frozenset[UUID]
    bindings: tuple[Binding | Uplink, ...]


def _plugged(port: Any) -> _Plugged:  # noqa: ANN401
    """Everything of it that has an OpenFlow number; an interface in error has -1."""
    found: list[Binding | Uplink] = []
    for interface in port.interfaces:
        ofport = _one(interface.ofport) or 0
        if ofport > 0:
            ofport += _RESERVED_OFFSET if ofport >= _FIRST_RESERVED else 0
            port_id = interface.external_ids.get("iface-id")
            found.append(_uplink(port, ofport) if port_id is None else Binding(port_id, ofport, _one(port.tag) or 0))
    rows = frozenset((port.uuid, *(interface.uuid for interface in port.interfaces)))
    return _Plugged(rows, tuple(found))


def _uplink(port: Any, ofport: int) -> Uplink:  # noqa: ANN401
    """A port in trunk mode ignores its tag; without a mode, a port with a tag is an access port."""
    tag = _one(port.tag)
    mode = _one(port.vlan_mode) or ("trunk" if tag is None else "access")
    if mode == "trunk":
        return Uplink(ofport)
    return Uplink(ofport, VlanMode.NATIVE if mode.startswith("native") else VlanMode.ACCESS, tag or 0)


def _one(column: list[Any]) -> Any:  # noqa: ANN401
    """The value of an optional column, or None."""
    return column[0] if column else None


def _release(version: str) -> tuple[int, ...]:
    """(3, 1) of `3.1.0-2+deb12u1`."""
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2] if part.isdigit())
