"""Golden tests: a policy, and the flows it becomes, by table name, one a line.

`OVSFW_REGEN=1 pytest tests/test_golden.py` writes the flows anew; review reads the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from ovsfw.cli.compile import assume
from ovsfw.compiler import NEUTRON, STANDALONE, Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink, VlanMode
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.compiler.standing import standing_flows
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.text import format_flow
from ovsfw.policy.document import parse

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".policy.yaml") for path in GOLDEN.glob("*.policy.yaml"))


def flows_of(name: str) -> str:
    """What a policy adds to the standing flows; `standing` is those alone; `hook_neutron` is what that hook changes."""
    policy = parse((GOLDEN / f"{name}.policy.yaml").read_bytes(), name)
    bindings = assume(policy)
    if name == "unknown_port":
        bindings = Bindings((*bindings.endpoints, Binding("stranger", 9)))
    frame = set() if name == "standing" else {flow.key for flow in standing_flows()}
    flows = compile_policy(policy, bindings).flows.flows()
    if name == "hook_neutron":
        bindings = Bindings(
            (Binding("vm1", 1, 7), Binding("unfiltered", 2, 7)), (Uplink(3), Uplink(4, VlanMode.ACCESS, 7))
        )
        alone = set(compile_policy(policy, bindings, STANDALONE).flows.flows())
        return printed(flow for flow in compile_policy(policy, bindings, NEUTRON).flows.flows() if flow not in alone)
    return printed(flow for flow in flows if flow.key not in frame)


def printed(flows: Iterable[Flow]) -> str:
    return "".join(f"{format_flow(flow, TABLE_NAMES)}\n" for flow in flows)


@pytest.mark.parametrize("name", CASES)
def test_a_policy_becomes_these_flows(name: str) -> None:
    expected = GOLDEN / f"{name}.flows"
    if os.environ.get("OVSFW_REGEN"):
        expected.write_text(flows_of(name))
    assert flows_of(name).splitlines() == expected.read_text().splitlines()


def test_there_are_cases() -> None:
    assert len(CASES) > 10
