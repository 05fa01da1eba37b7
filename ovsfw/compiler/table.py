"""What a table of the pipeline is: it declares what its flows may match and where they may lead, and builds them.

The tables themselves are declared in `pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from operator import itemgetter

from ovsfw.openflow import match as m
from ovsfw.openflow.action import Action, Ct, Resubmit
from ovsfw.openflow.flow import Flow, flow

FIRST_OWN, OWN = 100, 40
"""The number of the first of our own tables, and how many there may be."""


class Priority(IntEnum):
    """Every priority there is, highest first within its table."""

    # In the hook table, which may be shared.
    HOOK = 1001
    # Elsewhere.
    BAN = 500
    FIRST = 400
    SECOND = 300
    THIRD = 200
    FOURTH = 100
    FIFTH = 50
    SIXTH = 25
    SEVENTH = 12
    EIGHTH = 6
    MISS = 0


class PipelineError(Exception):
    """A flow that the declaration does not allow: a bug of this program."""


_FIELD = itemgetter(0)
_LEADING = frozenset({Resubmit, Ct})


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """One OpenFlow table: what its flows may match, and the tables they may lead to."""

    name: str
    number: int
    about: str
    matches: frozenset[m.Field]
    leads_to: frozenset[str] = frozenset()
    _seen: set[object] = field(default_factory=set, repr=False)

    def flow(self, priority: Priority, match: m.Match, actions: tuple[Action, ...], why: int) -> Flow:
        """Build a flow of this table; `why` is its cookie.  Raises PipelineError against the declaration."""
        shape = tuple(map(_FIELD, match))
        if shape not in self._seen:
            self._check_match(shape)
        for action in actions:
            if type(action) in _LEADING and action not in self._seen:
                self._check_action(action)
        return flow(self.number, priority, match, actions, why)

    def _check_match(self, shape: tuple[m.Field, ...]) -> None:
        strange = [term.name for term in shape if term not in self.matches]
        if strange:
            raise PipelineError(f"table {self.name} does not match {', '.join(strange)}")
        self._seen.add(shape)

    def _check_action(self, action: Action) -> None:
        target = action.table if isinstance(action, Resubmit | Ct) else None
        # Nothing leads to the tables of others but by the hook.
        name = BY_NUMBER.get(target, TABLES[0]).name if target is not None else ""
        if name and name not in self.leads_to:
            raise PipelineError(f"table {self.name} does not lead to {name}")
        self._seen.add(action)


TABLES: list[Table] = []
"""Those that are declared, in the order of their numbers; the first one is the hook, which others may share."""
BY_NUMBER: dict[int, Table] = {}


def declare(name: str, about: str, matches: Iterable[m.Field], *leads_to: str) -> Table:
    """Declare the next table."""
    number = FIRST_OWN + len(TABLES) - 1 if TABLES else 0
    table = Table(name, number, about, frozenset(matches), frozenset(leads_to))
    TABLES.append(table)
    BY_NUMBER[number] = table
    return table
