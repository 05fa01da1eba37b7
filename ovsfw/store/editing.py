"""Changes to the policy database: all of a change in one transaction, or nothing.

A change is read, judged and written as a whole: the rows make a document, the document is changed, the reader of
policy documents judges it, and what differs is written.  The transaction is only good for the generation that was read,
so that of two writers one starts again, and what is in the database has always been judged as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ovsfw.errors import StoreAwayError, StoreError
from ovsfw.policy.document import judge_values
from ovsfw.policy.model import Policy
from ovsfw.policy.writing import Document
from ovsfw.store.client import DATABASE, Connection, Remote, connected, words
from ovsfw.store.rows import ALL, Columns, Difference, Key, Rows, columns_of, difference, document_of, rows_of

TIMEOUT = 10.0
_PAUSE = 0.2  # seconds before another try, when nobody could take the first
Operation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """The whole policy in the database, and which it is."""

    identity: str
    generation: int
    rows: Rows

    @property
    def document(self) -> Document:
        """As a policy document.  Raises StoreError when other programs have written rows that are none."""
        try:
            return document_of(self.rows)
        except ValueError as error:
            raise StoreError(f"the policy database holds what is no policy: {error}") from None


@dataclass(frozen=True, slots=True)
class Edit:
    """What a change has done; the generation is the one that holds now, changed or not."""

    generation: int
    changes: Difference
    policy: Policy


Change = Callable[[Document], Document]


async def read(remote: Remote) -> Contents:
    """What is in the database.  Raises StoreError when it is away or has not been set up."""
    async with connected(remote) as connection:
        return await read_from(connection)


async def read_from(connection: Connection) -> Contents:
    """What is in the database behind a connection."""
    selects = [select("Global", ["identity", "generation"]), *(select(table, columns_of(table)) for table in ALL)]
    answers = await transact(connection, selects)
    if not answers[0]["rows"]:
        raise StoreError(f"{connection.address}: the policy database has not been set up; run: ovsfw db init")
    (top,) = answers[0]["rows"]
    found = [rows_from(table, answer) for table, answer in zip(ALL, answers[1:], strict=True)]
    return Contents(
        top["identity"], top["generation"], {key: columns for rows in found for key, columns in rows.items()}
    )


def rows_from(table: str, answer: Operation) -> Rows:
    """The rows of one table, from the answer to a `select`."""
    return {
        Key(table, row["id"]): {name: _from_wire(name, value) for name, value in row.items()} for row in answer["rows"]
    }


async def edit(remote: Remote, change: Change, *, awaited: bool = False, timeout: float = TIMEOUT) -> Edit:
    """Change the policy, once more from the start when another writer or the loss of a server came between.

    `awaited` asks the hosts to say at once when they have it.  Raises PolicyError when the changed policy is wrong,
    StoreAwayError when the database is away for `timeout` seconds, and StoreError when it refuses.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            async with connected(remote) as connection:
                if (done := await _attempt(connection, change, awaited=awaited)) is not None:
                    return done
            problem = StoreAwayError(f"{remote}: others change the policy database all the time; try again")
        except StoreAwayError as error:
            problem = error
        except OSError as error:  # on the way: done or not, the next turn will see
            problem = StoreAwayError(f"{remote}: the connection was lost: {error.strerror or error}")
        if time.monotonic() > deadline:
            raise problem
        await asyncio.sleep(_PAUSE)


async def _attempt(connection: Connection, change: Change, *, awaited: bool) -> Edit | None:
    """One turn; None when another writer was faster."""
    before = await read_from(connection)
    document = judge_values(change(before.document), "policy database")
    changes = difference(before.rows, rows_of(document.policy, document.written))
    if not changes and before.generation:
        generation = before.generation
        work = []
    else:
        generation = before.generation + 1
        work = [*operations(changes), update_global({"generation": generation})]
    if awaited:
        work.append(update_global({"awaited": generation}))
    if work and not await commit(connection, before.generation, work):
        return None
    return Edit(generation, changes, document.policy)


async def commit(connection: Connection, generation: int, work: list[Operation]) -> bool:
    """Whether it was done; not when the generation is another one already.  Raises StoreError."""
    wait = {
        "op": "wait",
        "table": "Global",
        "where": [],
        "columns": ["generation"],
        "until": "==",
        "rows": [{"generation": generation}],
        "timeout": 0,
    }
    answers = await connection.call("transact", [DATABASE, wait, *work])
    if (answers[0] or {}).get("error") == "timed out":
        return False
    _raise_for(connection, answers)
    return True


async def transact(connection: Connection, work: list[Operation]) -> list[Any]:
    """One transaction.  Raises StoreError when any part of it fails."""
    answers: list[Any] = await connection.call("transact", [DATABASE, *work])
    _raise_for(connection, answers)
    return answers


def _raise_for(connection: Connection, answers: list[Any]) -> None:
    for answer in answers:
        if answer is not None and "error" in answer:
            raise StoreError(f"{connection.address}: {words(answer)}")


def operations(changes: Difference) -> Iterator[Operation]:
    """What carries a difference out."""
    for key in changes.delete:
        yield {"op": "delete", "table": key.table, "where": _is(key)}
    for key, columns in changes.insert.items():
        yield {"op": "insert", "table": key.table, "row": _to_wire(columns)}
    for key, columns in changes.update.items():
        yield {"op": "update", "table": key.table, "where": _is(key), "row": _to_wire(columns)}


def _is(key: Key) -> list[object]:
    return [["id", "==", key.id]]


def update_global(row: Operation) -> Operation:
    """Change the row of the whole database."""
    return {"op": "update", "table": "Global", "where": [], "row": row}


def select(table: str, columns: list[str], where: Sequence[object] = ()) -> Operation:
    """Ask for some columns of all rows, or of those that meet every condition."""
    return {"op": "select", "table": table, "where": list(where), "columns": columns}


def _to_wire(columns: Columns) -> Operation:
    return {name: ["set", list(value)] if isinstance(value, tuple) else value for name, value in columns.items()}


def _from_wire(name: str, value: Any) -> Any:  # noqa: ANN401
    """A set is ["set", [...]], or the bare element where it has one (RFC 7047, section 5.1)."""
    match name:
        case "security_groups":
            return tuple(sorted(value[1])) if isinstance(value, list) else (value,)
        case "revision":
            return None if isinstance(value, list) else value
        case _:
            return value
