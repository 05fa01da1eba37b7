"""How much work a change is: flows, flow mods, bytes, and units compiled.  Counted, not timed: the same on any machine.

`OVSFW_REGEN=1 pytest tests/test_work.py` writes the numbers anew; review reads the difference.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsfw.compiler import Compiler, compile_policy
from ovsfw.compiler.stats import stats
from ovsfw.lab.shapes import SHAPES, sized
from ovsfw.openflow import wire
from ovsfw.openflow.diff import Diff, diff
from ovsfw.openflow.flow import FlowSet
from ovsfw.policy.document import parse
from ovsfw.policy.paged import Paged
from tests.benchmarks.changes import KINDS, Change, Situation
from tests.benchmarks.world import bindings, policy

GOLDEN = Path(__file__).parent / "golden" / "work.json"
ON = "medium"


def kept(about: str, name: str, measured: dict[str, int]) -> dict[str, int]:
    """What is expected of it; written anew when asked."""
    known: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("OVSFW_REGEN"):
        known.setdefault(about, {})[name] = measured
        GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    expected: dict[str, int] = known[about][name]
    return expected


def octets(change: Diff) -> int:
    """What a bundle puts on the wire for it."""
    adds = [*(desired for _, desired in change.changes), *change.adds]
    return sum(map(len, wire.bundle_adds(1, change.deletes, adds, 2)))


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_costs_so_many_flows(name: str) -> None:
    """And no more than additive growth allows, per endpoint, rule mask and remote address."""
    measured = policy(name)
    here = bindings(measured)
    compiler = Compiler()
    program = compiler.compile(measured, here)
    counted = stats(measured, here, program)
    everything = diff(FlowSet({}), program.flows)
    found = {"flows": counted.flows, "bytes": octets(everything), "units": compiler.units.made}
    assert counted.flows <= counted.budget
    assert found == kept("shapes", name, found)


@pytest.mark.parametrize("name", KINDS)
def test_a_change_costs_so_much(name: str) -> None:
    base = policy(ON)
    before, after = KINDS[name]((base, bindings(base)), 0)
    compiler = Compiler()
    old = compiler.compile(*before)
    made = compiler.units.made
    new = compiler.compile(*after)
    change = diff(old.flows, new.flows)
    found = {
        "flows added": len(change.adds),
        "flows deleted": len(change.deletes),
        "flows changed": len(change.changes),
        "bytes": octets(change),
        "units": compiler.units.made - made,
    }
    assert found == kept("changes", name, found)
    assert new.flows.flat == compile_policy(*after).flows.flat
    made = compiler.units.made
    assert compiler.compile(*after).flows.batches.keys() == new.flows.batches.keys()
    assert compiler.units.made == made, "nothing has changed, and something was compiled again"


def grown(times: int) -> Situation:
    """Everything so many times: ports here and elsewhere, and groups."""
    document = sized(local=100 * times, remote=500 * times, groups=25 * times, rules=8)
    found = parse(json.dumps(document), f"x {times}")
    found = replace(found, ports=Paged(found.ports))
    return found, bindings(found)


def calls(change: Change, now: Situation) -> int:
    """How many functions are called to compile and to compare: the same on any machine."""
    before, after = change(now, 0)
    compiler, called = Compiler(), Counter[str]()
    old = compiler.compile(*before)
    sys.setprofile(lambda _frame, event, _arg: called.update((event,)))
    try:
        diff(old.flows, compiler.compile(*after).flows)
    finally:
        sys.setprofile(None)
    return called["call"] + called["c_call"]


def test_a_change_costs_no_more_where_there_is_more_of_all_else() -> None:
    """Four times as much of everything: what looks at each port, or each group, would take four times as many calls."""
    small, large = grown(1), grown(4)
    for name, change in KINDS.items():
        few, many = calls(change, small), calls(change, large)
        assert many <= 1.7 * few, f"{name}: {few} calls, and {many} with four times as much"
