"""Which hosts have which policy in their flows, and waiting until all of them have one."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, fields

from ovsfw.errors import StoreError
from ovsfw.store.client import Connection, Remote, connected
from ovsfw.store.editing import transact
from ovsfw.store.report import DEAD_AFTER, HostState

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2


@dataclass(frozen=True, slots=True)
class Status:
    """The database and its hosts at one moment, `now` in seconds since 1970."""

    identity: str
    generation: int
    hosts: tuple[HostState, ...]
    now: float

    @property
    def dead(self) -> tuple[HostState, ...]:
        """Hosts that have said nothing for long."""
        return tuple(host for host in self.hosts if not host.is_alive(self.now))

    def late(self, generation: int) -> tuple[HostState, ...]:
        """Live hosts that do not have a generation yet."""
        return tuple(host for host in self.hosts if host.is_alive(self.now) and host.generation < generation)

    @property
    def conflicts(self) -> dict[str, tuple[str, ...]]:
        """Ports that several live hosts have, as during a migration, or by mistake."""
        where: dict[str, list[str]] = defaultdict(list)
        for host in self.hosts:
            if host.is_alive(self.now):
                for port in host.ports:
                    where[port].append(host.name)
        return {port: tuple(hosts) for port, hosts in sorted(where.items()) if len(hosts) > 1}


async def status(remote: Remote) -> Status:
    """How the hosts are.  Raises StoreError."""
    async with connected(remote) as connection:
        return await _status(connection)


async def _status(connection: Connection) -> Status:
    columns = [each.name for each in fields(HostState)]
    top = {"op": "select", "table": "Global", "where": [], "columns": ["identity", "generation"]}
    hosts = {"op": "select", "table": "Host", "where": [], "columns": columns}
    tops, rows = (answer["rows"] for answer in await transact(connection, [top, hosts]))
    if not tops:
        raise StoreError(f"{connection.address}: the policy database has not been set up; run: ovsfw db init")
    found = sorted((HostState.of(row) for row in rows), key=lambda host: host.name)
    return Status(tops[0]["identity"], tops[0]["generation"], tuple(found), time.time())


async def wait_for_hosts(remote: Remote, generation: int, timeout: float) -> Status:
    """Wait until every live host has a generation in its flows; how they are then, for the dead have not.

    Raises StoreError that names the hosts that do not, after `timeout` seconds.
    """
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
    while True:
        problem = ""
        try:
            found = await status(remote)
            if not (late := found.late(generation)):
                return found
            problem = "\n".join(_what_is_wrong(host, generation, timeout) for host in late)
        except (StoreError, OSError) as error:  # a server is lost; another one may answer
            problem = str(error)
        if time.monotonic() > deadline:
            raise StoreError(problem)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _what_is_wrong(host: HostState, generation: int, timeout: float) -> str:
    why = f": {host.problem}" if host.problem else ""
    return (
        f"host {host.name} has generation {host.generation}, not {generation}, after {timeout:.0f} s{why} "
        f"(it counts as dead when it says nothing for {DEAD_AFTER:.0f} s)"
    )


async def forget_host(remote: Remote, name: str) -> bool:
    """Remove the row of a host that is gone for good; whether there was one.  A living host makes it anew."""
    async with connected(remote) as connection:
        delete = {"op": "delete", "table": "Host", "where": [["name", "==", name]]}
        (answer,) = await transact(connection, [delete])
        return bool(answer["count"])
