"""A copy of the rows of one host, kept up to date by Open vSwitch's own client (conditional monitoring).

Which rows a host needs is learned on the way: its ports name groups, their rules name other groups and address groups.
So the conditions are widened until nothing is missing; only then the copy is `settled`, and good for a policy.  When
the connection is lost the copy stays, and is brought up to date later, by what was missed where the server still knows
(monitor_cond_since).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ovsfw.store.client import Remote, Tls
from ovsfw.store.part import Needs, Part
from ovsfw.store.rows import ALL, Columns, Key, columns_of
from ovsfw.store.setup import schema_file
from ovsfw.switch.idl import ROW_CREATE, Idl, Poller, SchemaHelper, Stream

logger = logging.getLogger(__name__)

_GLOBAL = ("identity", "generation", "awaited", "trusted")


def set_tls(tls: Tls | None) -> None:
    """For Open vSwitch's own client; the files are those of the whole process, as in its own programs."""
    if tls is not None:
        Stream.ssl_set_private_key_file(tls.private_key)
        Stream.ssl_set_certificate_file(tls.certificate)
        Stream.ssl_set_ca_cert_file(tls.ca_certificate)


class Top(NamedTuple):
    """The row of the whole database."""

    identity: str
    generation: int
    awaited: int
    trusted: int


class _Client(Idl):  # type: ignore[misc] # it has no types
    """Notes which rows have changed, and which of them it has been told of as new."""

    def __init__(self, remote: str, helper: SchemaHelper) -> None:
        super().__init__(remote, helper, leader_only=False)  # a follower knows as much, and there are more of them
        self.dirty: dict[tuple[str, Any], Any] = {}
        self.created: set[tuple[str, Any]] = set()

    def notify(self, event: str, row: Any, updates: Any = None) -> None:  # noqa: ANN401, ARG002 - no types
        name = row._table.name, row.uuid  # noqa: SLF001 - a row has no other word for its table
        self.dirty[name] = row
        if event == ROW_CREATE:
            self.created.add(name)

    @property
    def is_live(self) -> bool:
        """Whether a server tells us changes at this moment."""
        return self.state == self.IDL_S_MONITORING and bool(self._session.is_connected())


class Copy:
    """The rows of one host, read into a `Part`; lives in the loop that runs it.

    `changed` is called after every batch of news, and when the connection comes or goes.
    """

    def __init__(self, remote: Remote, changed: Callable[[], None]) -> None:
        """Connect in the background."""
        set_tls(remote.tls)
        self.part = Part(str(remote))
        self._was_live = False
        self._changed = changed
        helper = SchemaHelper(schema_json=json.loads(schema_file().read_text()))
        helper.register_columns("Global", list(_GLOBAL))
        for table in ALL:
            helper.register_columns(table, columns_of(table))
        self._idl = _Client(str(remote), helper)
        self._keys: dict[str, dict[Any, Key]] = {table: {} for table in ALL}
        self._poke = asyncio.Event()
        self._seen: tuple[int, int, bool] | None = None  # None: look, whether there is news or not
        self._ask()
        self._driver = asyncio.create_task(self._drive())

    @property
    def is_live(self) -> bool:
        """Whether the copy is of this moment, and not of the past."""
        return not self._driver.done() and self._idl.is_live

    @property
    def is_settled(self) -> bool:
        """Whether every row that the host needs is here."""
        wanted = conditions(self.part.needs())
        states = {table: self._idl.tables[table].condition_state for table in wanted}
        return bool(self._idl.has_ever_connected()) and all(
            states[table].acked == wanted[table] and states[table].new is states[table].requested is None
            for table in wanted
        )

    def top(self) -> Top | None:
        """The row of the whole database; None when it has none (yet)."""
        for row in self._idl.tables["Global"].rows.values():
            return Top(*(getattr(row, name) for name in _GLOBAL))
        return None

    def plug(self, port_ids: frozenset[str]) -> None:
        """Which ports are here."""
        self.part.plugged = port_ids
        self._ask()
        self._seen = None
        self._poke.set()

    def reconnect(self) -> None:
        """Leave this server and look for one."""
        self._idl.force_reconnect()
        self._poke.set()

    async def close(self) -> None:
        """Stop; doing it again is fine."""
        self._driver.cancel()
        await asyncio.gather(self._driver, return_exceptions=True)
        self._idl.close()

    async def _drive(self) -> None:
        while True:
            self._idl.run()
            now = (self._idl.change_seqno, self._idl.cond_seqno, self._idl.is_live)
            if now != self._seen:
                self._seen = now
                self._note_return()
                self._take()
                self._ask()
                self._changed()
            poller = Poller()
            self._idl.wait(poller)
            await poller.block(self._poke)
            self._poke.clear()

    def _note_return(self) -> None:
        """Say how a lost connection was made good for: a row that was known and comes as new was read again."""
        created, self._idl.created = self._idl.created, set()
        if self.is_live and not self._was_live and any(self._keys.values()):
            again = any(uuid in self._keys.get(table, ()) for table, uuid in created)
            how = "every row was read again" if again else "what was missed was caught up"
            logger.info("%s: connected again, and %s", self.part.source, how)
        self._was_live = self.is_live

    def _take(self) -> None:
        """Read what has changed.  After a reconnection rows may have gone without a word."""
        dirty, self._idl.dirty = self._idl.dirty, {}
        for (table, uuid), row in dirty.items():
            if table in self._keys:
                self._take_row(table, uuid, row)
        for table, keys in self._keys.items():
            rows = self._idl.tables[table].rows
            if len(rows) != len(keys):
                for uuid in [uuid for uuid in keys if uuid not in rows]:
                    self.part.drop(keys.pop(uuid))

    def _take_row(self, table: str, uuid: Any, row: Any) -> None:  # noqa: ANN401
        before = self._keys[table].pop(uuid, None)
        if before is not None and (uuid not in self._idl.tables[table].rows or row.id != before.id):
            self.part.drop(before)
        if uuid in self._idl.tables[table].rows:
            key = self._keys[table][uuid] = Key(table, row.id)
            self.part.put(key, _columns(table, row))

    def _ask(self) -> None:
        for table, where in conditions(self.part.needs()).items():
            self._idl.cond_change(table, where)


def _columns(table: str, row: Any) -> Columns:  # noqa: ANN401
    columns = {name: getattr(row, name) for name in columns_of(table)}
    if table == "Port":
        return {**columns, "security_groups": tuple(sorted(columns["security_groups"]))}
    return columns


def conditions(needs: Needs) -> dict[str, list[Any]]:
    """What to ask the server for, by table; a row is sent when any of a table's conditions holds.

    Where there is none, [False]: the client has it so, too.  Tiers go to every host.
    """
    asked = {
        "Port": [*_each("id", "==", needs.ports), *_each("security_groups", "includes", needs.members_of)],
        "Security_Group": _each("id", "==", needs.groups | needs.members_of),
        "Rule": _each("security_group", "==", needs.groups),
        "Address_Group": _each("id", "==", needs.address_groups),
        "Network": _each("id", "==", needs.networks),
    }
    asked["Assertion"] = []  # hosts have no use for them
    return {table: where or [False] for table, where in asked.items()}


def _each(column: str, function: str, values: Iterable[str]) -> list[Any]:
    return [[column, function, value] for value in sorted(values)]
