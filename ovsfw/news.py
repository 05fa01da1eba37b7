"""What is new since the last look, in words for a line of the log.  Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from ovsfw.compiler.bindings import Binding, Bindings
from ovsfw.compiler.hook import HOOK_COOKIE
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import FlowSet
from ovsfw.openflow.text import format_flow

# So many are named in one line, and so many repaired flows are shown.
NAMED, SHOWN = 3, 10


def plugging(before: Bindings, now: Bindings) -> Iterator[str]:
    """`port 4f1c plugged`, `port 4f1c re-tagged`, ...; uplinks in one word."""
    if before is now:
        return
    names = {bound.port_id for bound in {*before.endpoints} ^ {*now.endpoints}}
    old, new = _by_port(before, names), _by_port(now, names)
    yield from (f"port {port_id} plugged" for port_id in new if port_id not in old)
    yield from (f"port {port_id} unplugged" for port_id in old if port_id not in new)
    for port_id in new:
        if port_id in old and old[port_id] != new[port_id]:
            renumbered = [each.ofport for each in old[port_id]] != [each.ofport for each in new[port_id]]
            yield f"port {port_id} {'renumbered' if renumbered else 're-tagged'}"
    if before.uplinks != now.uplinks:
        yield "uplinks changed"


def _by_port(bindings: Bindings, names: Container[str]) -> dict[str, list[Binding]]:
    """Only of those ports."""
    found: dict[str, list[Binding]] = {}
    for bound in bindings.endpoints:
        if bound.port_id in names:
            found.setdefault(bound.port_id, []).append(bound)
    return found


def joined(reasons: Sequence[str]) -> str:
    """The first few reasons, each once, and how many more."""
    once = list(dict.fromkeys(reasons))
    more = f" and {len(once) - NAMED} more" if len(once) > NAMED else ""
    return ", ".join(once[:NAMED]) + more


def repairs(diff: Diff) -> list[str]:
    """What somebody else had done, one line a flow; the difference is what undoes it."""
    lines = [f"somebody deleted: {format_flow(flow, TABLE_NAMES)}" for flow in diff.adds]
    lines += [f"somebody added: {format_flow(flow, TABLE_NAMES)}" for flow in diff.deletes]
    for found, right in diff.changes:
        lines.append(f"somebody changed: {format_flow(right, TABLE_NAMES)} to: {format_flow(found, TABLE_NAMES)}")
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def was_open(diff: Diff, flows: FlowSet) -> bool:
    """Whether the way into the filter alone was gone, so that packets passed it by; `flows` are all that are there now.

    Where there was none of our flows, the bridge is a new one, or the switch was restarted.
    """
    put, taken = (any(flow.cookie == HOOK_COOKIE for flow in side) for side in (diff.adds, diff.deletes))
    return put and not taken and len(diff.adds) < len(flows)
