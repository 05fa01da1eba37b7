"""Rows of the policy database beside what Neutron says: what has to be written.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ovsfw.errors import PolicyError
from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT, REVISION, UNITS, Published
from ovsfw.store.part import judge
from ovsfw.store.rows import RULES, TABLES, Columns, Difference, Key, Rows, difference, read_object, write_object

TIERS = TABLES["tiers"]


@dataclass(frozen=True, slots=True)
class Change:
    """What makes some rows right; the units that are newer there than what was read here; and rows nobody can read."""

    difference: Difference
    stale: frozenset[Key] = frozenset()
    problems: tuple[str, ...] = ()

    @property
    def matters(self) -> bool:
        """Whether a host has to know: another revision of the same object is nothing to it."""
        return bool(self.difference.delete or self.difference.insert) or any(
            columns.keys() - {REVISION} for columns in self.difference.update.values()
        )


def change_of(old: Rows, new: Published, *, whole: bool) -> Change:
    """Compare; `old` are all the rows of the units in question, or of the `whole` database.

    Rows without a revision are not Neutron's and stay, except rules in a group of Neutron's.  A unit that is older in
    `new` is left as it is.  A group that is gone is only emptied, as long as something may refer to it.
    """
    stale = frozenset(
        key for key, columns in new.rows.items() if key.table in UNITS and _revision(old.get(key)) > _revision(columns)
    )
    wanted, faults = _readable({k: c for k, c in new.rows.items() if unit_of(k, c) not in stale}, old)
    ours = {k: c for k, c in old.items() if unit_of(k, c) not in stale and _is_ours(k, old, wanted)}
    gone = {key for key in ours if key.table in (GROUP, ADDRESS_GROUP) and key not in wanted}
    if gone and whole:
        others = [(k, c) for k, c in old.items() if k not in ours]
        gone &= _references([*wanted.items(), *others])
    wanted |= {key: _emptied(old[key]) for key in gone}
    return Change(difference(ours, wanted), stale, (*new.problems, *faults))


def unit_of(key: Key, columns: Columns) -> Key:
    """The unit that a row belongs to."""
    return Key(GROUP, columns["security_group"]) if key.table == RULES else key


def _revision(columns: Columns | None) -> int:
    found = None if columns is None else columns.get(REVISION)
    return -1 if found is None else int(found)


def _is_ours(key: Key, old: Rows, wanted: Rows) -> bool:
    unit = unit_of(key, old[key])
    return unit in wanted or _revision(old[key]) >= 0 or _revision(old.get(unit)) >= 0


def _readable(rows: Rows, old: Rows) -> tuple[Rows, list[str]]:
    """Without what no host could read, which would keep hosts from reading the rest; and why."""
    good: Rows = {}
    faults = []
    for key, columns in rows.items():
        before = old.get(key)
        try:
            if before is None or before["document"] != columns["document"]:
                judge(key, columns, f"{key.table} {key.id}")
        except PolicyError as error:
            faults.append(f"{error}; it is left out, and allows nothing")
        else:
            good[key] = columns
    return good, faults


def _references(rows: Iterable[tuple[Key, Columns]]) -> frozenset[Key]:
    """The groups and address groups that rows name."""
    found: set[Key] = set()
    for key, columns in rows:
        if key.table == PORT:
            found.update(Key(GROUP, name) for name in columns["security_groups"])
        elif key.table in (RULES, TIERS):
            data = read_object(columns["document"])
            found.update(Key(GROUP, name) for name in data.get("applies_to") or ())
            for rule in data.get("rules") or [data]:
                found.add(Key(GROUP, rule.get("remote_group_id")))
                found.add(Key(ADDRESS_GROUP, rule.get("remote_address_group_id")))
    return frozenset(found)


def _emptied(columns: Columns) -> Columns:
    """A group whose rules are gone, or an address group without addresses."""
    data = {key: value for key, value in read_object(columns["document"]).items() if key != "addresses"}
    return {**columns, "document": write_object(data)}


def told(change: Change, old: Rows) -> Iterator[str]:
    """A line for each row that differs: `+` it is missing, `-` it should not be there, `~` it is another one."""
    found = change.difference
    changed: Rows = {
        key: {**old[key], **columns} for key, columns in found.update.items() if columns.keys() - {REVISION}
    }
    for sign, rows in (("+", found.insert), ("-", {key: old[key] for key in found.delete}), ("~", changed)):
        for key, columns in sorted(rows.items(), key=lambda row: row[0]):
            where = f" of security group {columns['security_group']}" if key.table == RULES else ""
            yield f"{sign} {key.table.replace('_', ' ').lower()} {key.id}{where}: {columns['document']}"
