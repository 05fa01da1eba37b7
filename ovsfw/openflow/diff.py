"""What must change for one set of flows to become another.

The same comparison as `ofctl_replace_flows()` in Open vSwitch's utilities/ovs-ofctl.c: two passes, and a change is an
add, because an OpenFlow add replaces the entry that has its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ovsfw.openflow.flow import Batch, Flow, FlowSet, Key, Nest, Part, Value, parts


@dataclass(frozen=True, slots=True)
class Diff:
    """Flows to delete (as installed), to add, and to change (installed, desired); each sorted by key."""

    deletes: tuple[Flow, ...] = ()
    adds: tuple[Flow, ...] = ()
    changes: tuple[tuple[Flow, Flow], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.deletes or self.adds or self.changes)

    def __len__(self) -> int:
        """Number of flow mods."""
        return len(self.deletes) + len(self.adds) + len(self.changes)

    def __str__(self) -> str:
        """`+12 -3 ~1 flows`."""
        return f"+{len(self.adds)} -{len(self.deletes)} ~{len(self.changes)} flows"


def diff(installed: FlowSet, desired: FlowSet) -> Diff:
    """Compare; batches and parts that are the very same object in both are skipped."""
    have, want = _compared(installed, desired)
    if have == want:  # by far the fastest look at a hundred thousand
        return Diff()
    differing = sorted([key for key, value in want.items() if have.get(key) != value])
    adds = tuple([Flow(key, want[key]) for key in differing if key not in have])
    # Where the counts say that nothing is left over, a hundred thousand keys need not be looked for.
    gone = have.keys() - want.keys() if len(have) + len(adds) > len(want) else ()
    return Diff(
        deletes=tuple(Flow(key, have[key]) for key in sorted(gone)),
        adds=adds,
        changes=tuple((Flow(key, have[key]), Flow(key, want[key])) for key in differing if key in have),
    )


def _compared(installed: FlowSet, desired: FlowSet) -> tuple[Mapping[Key, Value], Mapping[Key, Value]]:
    """What has to be looked at in both."""
    if not installed.batches.keys() & desired.batches.keys():
        return installed.flat, desired.flat
    have: dict[Key, Value] = {}
    want: dict[Key, Value] = {}
    for old_batch, new_batch in _differing(installed.batches, desired.batches):
        for old, new in _between(old_batch, new_batch):
            have.update(old or {})
            want.update(new or {})
    return have, want


_Half = TypeVar("_Half")


def _differing(old: Mapping[object, _Half], new: Mapping[object, _Half]) -> Iterator[tuple[_Half | None, _Half | None]]:
    """What has one name in both and is not the same object, or is in one alone."""
    for name, after in new.items():
        before = old.get(name)
        if before is not after:
            yield before, after
    yield from ((old[name], None) for name in old.keys() - new.keys())


def _between(old: Batch | None, new: Batch | None) -> Iterator[tuple[Part | None, Part | None]]:
    """The parts of two batches that are not the same object."""
    if isinstance(old, Nest) and isinstance(new, Nest):
        for pair in _differing(old, new):
            yield from _between(*pair)
    else:
        # A batch may have been cut into several.
        yield from _differing(dict(parts(old or {})), dict(parts(new or {})))


def corrected(change: Diff, found: Mapping[Key, Value | None], desired: FlowSet) -> Diff:
    """The same difference, where some keys hold something else than was thought: a value, or None for no flow."""
    if not found:
        return change
    deletes = [flow for flow in change.deletes if flow.key not in found]
    adds = [flow for flow in change.adds if flow.key not in found]
    changes = [(old, new) for old, new in change.changes if old.key not in found]
    for key, value in found.items():
        want = desired.get(key)
        if want is None and value is not None:
            deletes.append(Flow(key, value))
        elif want is not None and value is None:
            adds.append(Flow(key, want))
        elif want is not None and value is not None and want != value:
            changes.append((Flow(key, value), Flow(key, want)))
    return Diff(tuple(sorted(deletes)), tuple(sorted(adds)), tuple(sorted(changes)))
