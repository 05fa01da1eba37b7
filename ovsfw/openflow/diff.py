"""What must change for one set of flows to become another.

The same comparison as `ofctl_replace_flows()` in Open vSwitch's utilities/ovs-ofctl.c: two passes, and a change is an
add, because an OpenFlow add replaces the entry that has its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ovsfw.openflow.flow import Flow, FlowSet, Key, Value


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
    """Compare; parts that are the very same object in both are skipped."""
    if installed.parts.keys() & desired.parts.keys():
        have: dict[Key, Value] = {}
        want: dict[Key, Value] = {}
        for name in installed.parts.keys() | desired.parts.keys():
            old, new = installed.parts.get(name), desired.parts.get(name)
            if old is not new:
                have.update(old or {})
                want.update(new or {})
    else:
        have, want = dict(installed.flat), dict(desired.flat)
    gone = have.keys() - want.keys()
    differing = want.items() - have.items()
    return Diff(
        deletes=tuple(Flow(key, have[key]) for key in sorted(gone)),
        adds=tuple(sorted(Flow(key, value) for key, value in differing if key not in have)),
        changes=tuple((Flow(key, have[key]), Flow(key, value)) for key, value in sorted(differing) if key in have),
    )


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
