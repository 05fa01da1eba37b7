"""The hosts, followed: which port is on which host, and which have their flows.

For a program that lets a machine start only once its port is ready.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields
from typing import Any

from ovsfw.store.client import Remote
from ovsfw.store.copy import set_tls
from ovsfw.store.report import HostState
from ovsfw.store.setup import schema_file
from ovsfw.switch.idl import Replica

_COLUMNS = tuple(each.name for each in fields(HostState))


class Hosts:
    """The rows of all hosts, kept up to date; lives in the loop that made it.

    While the database is away they are as they were.
    """

    def __init__(self, remote: Remote) -> None:
        """Connect in the background."""
        set_tls(remote.tls)
        schema = json.loads(schema_file().read_text())
        columns = schema["tables"]["Host"]["columns"]
        table = {"columns": {name: columns[name] for name in _COLUMNS}}
        self._replica = Replica(str(remote), {**schema, "tables": {"Host": table}})

    @property
    def changed(self) -> asyncio.Event:
        """Set whenever something may be new; who waits for it clears it."""
        return self._replica.changed

    async def synced(self, timeout: float) -> None:
        """Wait for the first whole copy.  Raises SwitchError after `timeout` seconds."""
        await self._replica.synced(timeout)

    def all(self) -> list[HostState]:
        """Each as it has said last.  Raises SwitchError when the client has failed."""
        return [
            HostState(**{name: _value(getattr(row, name)) for name in _COLUMNS}) for row in self._replica.rows("Host")
        ]

    def ready(self) -> dict[str, str]:
        """The host of each port that has its flows there; of several hosts, the one heard last."""
        found = sorted(self.all(), key=lambda host: host.last_seen)
        return {port: host.name for host in found for port in host.ready}

    def close(self) -> None:
        """Stop at once; doing it again is fine."""
        self._replica.close()


def _value(found: Any) -> Any:  # noqa: ANN401
    """A set is a list."""
    return tuple(sorted(found)) if isinstance(found, list) else found
