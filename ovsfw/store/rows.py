"""A policy as rows of the policy database, and back.

A row carries its object in the shape of the policy document, as JSON in the column `document`; so one reader judges
files and databases, and both know the same errors.  Other columns are only those that a host chooses its rows by.  The
rules of a group are rows of their own, so that a group may have thousands of them and change one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ovsfw.policy.model import Policy
from ovsfw.policy.writing import Document, as_document

# Which table holds which list of the document.
TABLES = {
    "security_groups": "Security_Group",
    "address_groups": "Address_Group",
    "ports": "Port",
    "tiers": "Tier",
    "networks": "Network",
    "assertions": "Assertion",
}
RULES = "Rule"
ALL = (*TABLES.values(), RULES)
# Columns besides `id` and `document`.  A host chooses rows by a port's groups and a rule's group; some have an order.
MORE = {"Port": "security_groups", RULES: "security_group", "Tier": "place", "Assertion": "place"}


class Key(NamedTuple):
    """Which row; ids are unique in a table.  The network without an id has the empty text."""

    table: str
    id: str


Columns = Mapping[str, Any]
Rows = dict[Key, Columns]


def rows_of(policy: Policy, assertions: Iterable[Mapping[str, object]] = ()) -> Rows:
    """Every row of a policy, and of assertions about it as they were written, with ids; tuples stand for sets."""
    return dict(_rows({**as_document(policy), "assertions": list(assertions)}))


def _rows(document: Document) -> Iterator[tuple[Key, Columns]]:
    for collection, table in TABLES.items():
        for place, found in enumerate(document[collection]):
            yield Key(table, found.get("id", "")), _columns(table, found, place)
    for group in document["security_groups"]:
        for rule in group.get("rules", ()):
            yield Key(RULES, rule["id"]), {**_columns(RULES, rule), "security_group": group["id"]}


def columns_of(table: str) -> list[str]:
    """The names of the columns that are read and written."""
    return ["id", "document", *([MORE[table]] if table in MORE else [])]


def _columns(table: str, found: Document, place: int = 0) -> Columns:
    if table == "Security_Group":
        found = {key: value for key, value in found.items() if key != "rules"}
    columns = {"id": found.get("id", ""), "document": write_object(found)}
    match table:
        case "Port":
            return {**columns, "security_groups": tuple(found.get("security_groups", ()))}
        case "Tier" | "Assertion":
            return {**columns, "place": place}
        case _:
            return columns


def document_of(rows: Mapping[Key, Columns]) -> Document:
    """The document that rows make, sorted by id, tiers and assertions by their place.

    Raises ValueError for a row whose `document` is no JSON object, and for a rule without its group.
    """
    document: Document = {collection: [] for collection in TABLES}
    of_table = {table: document[collection] for collection, table in TABLES.items()}
    rules: dict[str, list[Document]] = {}
    for key, columns in sorted(rows.items(), key=lambda row: (row[1].get("place", 0), row[0])):
        found = read_object(columns["document"])
        if key.table == RULES:
            rules.setdefault(columns["security_group"], []).append(found)
        else:
            of_table[key.table].append(found)
    for group in document["security_groups"]:
        if mine := rules.pop(group["id"], None):
            group["rules"] = mine
    if rules:
        raise ValueError(f"rules of a security group that is not there: {', '.join(sorted(rules))}")
    return document


def write_object(found: Document) -> str:
    """What goes into a column `document`; equal objects make equal texts."""
    return json.dumps(found, sort_keys=True, ensure_ascii=False)


def read_object(text: str) -> Document:
    """What is in a column `document`.  Raises ValueError when it is no JSON object."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{text[:40]!r} is no object")  # noqa: TRY004 - as json.loads does
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """What turns some rows into others."""

    delete: tuple[Key, ...]
    insert: Rows
    update: Rows  # only the columns that differ

    def __str__(self) -> str:
        """`+3 -1 ~2 rows`."""
        return f"+{len(self.insert)} -{len(self.delete)} ~{len(self.update)} rows"

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.delete or self.insert or self.update)


def difference(old: Mapping[Key, Columns], new: Mapping[Key, Columns]) -> Difference:
    """What must change; equal rows are not touched."""
    return Difference(
        tuple(sorted(old.keys() - new.keys())),
        {key: columns for key, columns in new.items() if key not in old},
        {key: changed for key, columns in new.items() if key in old and (changed := _changed(old[key], columns))},
    )


def _changed(old: Columns, new: Columns) -> Columns:
    return {name: value for name, value in new.items() if old[name] != value}
