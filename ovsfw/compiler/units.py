"""Units of flows, and a cache of them by what they were made from.

A unit is made anew when its inputs differ from those it was made from; a batch of units is looked at only when the
inputs of the whole batch differ.  Inputs are immutable values, and comparing them is cheap where they are the very same
objects.  So a small change costs what it touches, and what comes out depends only on what goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ovsfw.errors import PolicyError, Problem
from ovsfw.openflow.flow import Batch, Entry, Nest, Part, part_of
from ovsfw.policy.paged import Branch, Page, Paged, Tree

_TOO_LONG = (
    "one flow would be longer than the 64 KiB that OpenFlow has for it; "
    "use fewer security groups on a port, fewer ports with one MAC address, or fewer remote groups in a group's rules"
)


class Unit(NamedTuple):
    """Something to be compiled: a name of its own, what its flows depend on, and how to make them."""

    name: Hashable
    inputs: object
    build: Callable[[], Iterable[Entry]]


class _Made(NamedTuple):
    inputs: object
    part: Part


class _Batch(NamedTuple):
    """`inside` are the batches of which it is made, where it is too long for one."""

    inputs: Any
    units: Mapping[Hashable, _Made]
    parts: Batch
    inside: tuple[_Batch, ...] = ()


# The units in a page of a mapping, with what they depend on besides; the same for all pages.
PageUnits = Callable[[Page[Any, Any], Any], Iterable[Unit]]


class Units:
    """What was made last, by batch."""

    def __init__(self, finish: Callable[[Iterable[Entry]], Iterable[Entry]]) -> None:
        """Start with nothing.  `finish` is done to the flows of every unit."""
        self._finish = finish
        self._batches: dict[Hashable, _Batch] = {}
        self.made = 0
        """How many units have been made, ever."""

    def batch(self, name: Hashable, inputs: object, units: Callable[[], Iterable[Unit]]) -> Batch:
        """The flows of a batch by the names of its units; all of it depends on `inputs` alone.

        Raises PolicyError for a flow that OpenFlow cannot hold.
        """
        known = self._batches.get(name)
        if known is None or known.inputs != inputs:
            known = self._batches[name] = self._batch(inputs, units(), known)
        elif known.inputs is not inputs:
            # What is equal may hold on to more of the past.
            self._batches[name] = known._replace(inputs=inputs)
        return known.parts

    def pages(self, name: Hashable, items: Paged[Any, Any], given: object, units: PageUnits) -> Batch:
        """The same of a mapping, page by page; those that are the very same are not looked into while `given` is equal.

        Raises PolicyError for a flow that OpenFlow cannot hold.
        """
        known = self._batches[name] = self._tree(items.tree, given, units, self._batches.get(name))
        return known.parts

    def _tree(self, tree: Tree[Any, Any], given: object, units: PageUnits, before: _Batch | None) -> _Batch:
        if before is not None and before.inputs[0] is tree and before.inputs[1] == given:
            return before
        if not isinstance(tree, Branch):
            return self._batch((tree, given), units(tree, given), before)
        olds = before.inside if before and before.inside else (before,) * len(tree.pages)
        inside = tuple(self._tree(page, given, units, old) for page, old in zip(tree.pages, olds, strict=True))
        return _Batch((tree, given), {}, Nest(enumerate(batch.parts for batch in inside)), inside)

    def _batch(self, inputs: object, units: Iterable[Unit], known: _Batch | None) -> _Batch:
        before = dict(_units(known)) if known else {}
        made = {unit.name: self._make(unit, before.get(unit.name)) for unit in units}
        return _Batch(inputs, made, {name: part for name, (_, part) in made.items()})

    def keep(self, names: Container[Hashable]) -> None:
        """Forget all batches but these."""
        for gone in [name for name in self._batches if name not in names]:
            del self._batches[gone]

    def _make(self, unit: Unit, before: _Made | None) -> _Made:
        if before is not None and before.inputs == unit.inputs:
            return before
        self.made += 1
        try:
            return _Made(unit.inputs, part_of(self._finish(unit.build())))
        except OverflowError:
            what = " ".join(map(str, unit.name)) if isinstance(unit.name, tuple) else str(unit.name)
            raise PolicyError([Problem(f"{what}: {_TOO_LONG}")]) from None


def _units(batch: _Batch) -> Iterator[tuple[Hashable, _Made]]:
    yield from batch.units.items()
    for inside in batch.inside:
        yield from _units(inside)
