"""Writes what Neutron's database says into the policy database: always the last state, never what has happened.

The order of reading is what keeps the order: first which generation the policy database has, then Neutron's database,
then a transaction that is only good for that generation.  So whoever writes has read Neutron after the last one who
wrote; and where Neutron's database is replicated and late, the revision numbers of the rows say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ovsfw.errors import StoreAwayError, StoreError
from ovsfw.neutron.comparing import Change, change_of, unit_of
from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT, REVISION, Objects, published
from ovsfw.store.client import Connection, Remote, connected
from ovsfw.store.editing import Operation, commit, operations, rows_from, select, transact, update_global
from ovsfw.store.rows import ALL, RULES, Key, Rows, columns_of

REVISED = (GROUP, ADDRESS_GROUP, PORT, RULES)
_TRIES = 50
_PAUSE = 0.02


class Snapshot(Protocol):
    """Neutron's database at one moment."""

    def everything(self) -> Objects:
        """All there is."""

    def read(self, units: Collection[Key]) -> Objects:
        """Those of some units that there are."""


Neutron = Callable[[], AbstractContextManager[Snapshot]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, and for which generation that is good; the rows that were there."""

    generation: int
    change: Change
    old: Rows


class Publisher:
    """Has no state but where the databases are."""

    def __init__(self, remote: Remote, neutron: Neutron) -> None:
        self._remote, self._neutron = remote, neutron

    async def publish(self, units: Collection[Key]) -> Change:
        """Make some units right; the change that was made.

        Raises StoreAwayError when the policy database is away, or others write all the time, StoreError when it
        refuses, and whatever Neutron's database raises.
        """
        for _ in range(_TRIES):
            async with connected(self._remote) as connection:
                plan = await self._plan(connection, units)
                if await _carry_out(connection, plan):
                    return plan.change
            await asyncio.sleep(_PAUSE)
        raise StoreAwayError(f"{self._remote}: others change the policy database all the time; try again")

    async def compare(self) -> Plan:
        """What is not as Neutron's database says."""
        async with connected(self._remote) as connection:
            return await self._plan(connection, None)

    async def repair(self) -> Plan:
        """Mend what is not as Neutron's database says, and nothing else; what differed."""
        async with connected(self._remote) as connection:
            plan = await self._plan(connection, None)
            if not await _carry_out(connection, plan):
                # Somebody else was faster; what differed is a small part, and takes less time.
                await self.publish(units_of(plan))
        return plan

    async def take_turn(self, every: float) -> bool:
        """Whether the last comparison of any server is more than `every` seconds ago; this one's is then now."""
        async with connected(self._remote) as connection:
            (answer,) = await transact(connection, [select("Global", ["compared"])])
            before = [row["compared"] for row in answer["rows"]]
            now = int(time.time())
            if not before or 0 <= now - before[0] < every:
                return False
            where = [["compared", "==", before[0]]]
            turn = {"op": "update", "table": "Global", "where": where, "row": {"compared": now}}
            (answer,) = await transact(connection, [turn])
            return bool(answer["count"])

    async def _plan(self, connection: Connection, units: Collection[Key] | None) -> Plan:
        """Compare some units, or everything; a database without a policy never gets a part of one."""
        generation, old = await _read(connection, units)
        if units is not None and not generation:
            return await self._plan(connection, None)
        if units is None:  # seconds, in which this loop can publish
            return Plan(generation, await asyncio.to_thread(self._compare, old), old)
        with self._neutron() as neutron:
            new = published(*await _closed(connection, neutron, neutron.read(units)))
        return Plan(generation, change_of(old, new, whole=False), old)

    def _compare(self, old: Rows) -> Change:
        with self._neutron() as neutron:
            new = published(neutron.everything(), ())
        return change_of(old, new, whole=True)


async def _read(connection: Connection, units: Collection[Key] | None) -> tuple[int, Rows]:
    """The generation, and the rows of some units, or all."""
    asked = [(table, []) for table in ALL] if units is None else list(_questions(units))
    selects = [select(table, _columns(table), where) for table, where in asked]
    tops, *answers = await transact(connection, [select("Global", ["generation"]), *selects])
    if not tops["rows"]:
        raise StoreError(f"{connection.address}: the policy database has not been set up; run: ovsfw db init")
    rows = [rows_from(table, answer) for (table, _), answer in zip(asked, answers, strict=True)]
    return tops["rows"][0]["generation"], {key: columns for found in rows for key, columns in found.items()}


def _questions(units: Collection[Key]) -> Iterator[tuple[str, list[Any]]]:
    """A table and a condition for every kind of row that a unit has."""
    for unit in units:
        yield unit.table, [["id", "==", unit.id]]
        if unit.table == GROUP:
            yield RULES, [["security_group", "==", unit.id]]


def _columns(table: str) -> list[str]:
    return [*columns_of(table), *([REVISION] if table in REVISED else [])]


async def _closed(connection: Connection, neutron: Snapshot, objects: Objects) -> tuple[Objects, frozenset[Key]]:
    """With what the objects refer to, as far as the policy database does not have it; and what it has."""
    known, asked = frozenset[Key](), frozenset[Key]()
    while missing := objects.references - objects.units - asked:
        there = await _existing(connection, missing)
        known, asked = known | there, asked | missing
        objects |= neutron.read(missing - there)
    return objects, known


async def _existing(connection: Connection, units: Collection[Key]) -> frozenset[Key]:
    selects = [select(unit.table, ["id"], [["id", "==", unit.id]]) for unit in units]
    answers = await transact(connection, selects)
    return frozenset(unit for unit, answer in zip(units, answers, strict=True) if answer["rows"])


async def _carry_out(connection: Connection, plan: Plan) -> bool:
    """Whether it was done; not when the generation is another one already."""
    change = plan.change
    work: list[Operation] = list(operations(change.difference))
    if change.matters or not plan.generation:
        work.append(update_global({"generation": plan.generation + 1}))
    return not work or await commit(connection, plan.generation, work)


def units_of(plan: Plan) -> frozenset[Key]:
    """The units that differ."""
    change = plan.change.difference
    rows = {**plan.old, **change.insert}
    return frozenset(unit_of(key, rows[key]) for key in (*change.delete, *change.insert, *change.update))
