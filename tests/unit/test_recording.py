"""Copies of what is dropped: which flows send them, and that they still count as drops."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from ovsfw.cli.compile import assume
from ovsfw.compiler import Compiler, compile_policy
from ovsfw.compiler.pipeline import Reason, read_cookie
from ovsfw.compiler.recording import DROPS, Sends, is_drop, sent_by
from ovsfw.openflow.diff import diff
from ovsfw.openflow.flow import FlowSet
from ovsfw.policy.document import parse
from ovsfw.policy.model import Action
from tests.unit.test_compiled_tiers import policy, rule

GOLDEN = Path(__file__).parent.parent / "golden"
# Not in DROPS: these stand where a call ends that has nothing more to say (a broadcast that no endpoint may get is a
# list of nobody).
# Of the last, no packet of anybody's comes there.
NOT_RECORDED = {Reason.MISS, Reason.SPOKEN, Reason.FLOOD, Reason.REMARK}
DENIES, REJECTS = policy(rule(1)), policy(rule(1, Action.REJECT))


@pytest.mark.parametrize(("records", "answers"), list(product((False, True), repeat=2)))
def test_what_sends_copies_drops_as_before(*, records: bool, answers: bool) -> None:
    plain = compile_policy(REJECTS, assume(REJECTS)).flows
    flows = Compiler().compile(REJECTS, assume(REJECTS), Sends(records, answers)).flows
    assert [flow.key for flow in plain.flows() if not flow.instructions] == [
        flow.key for flow in flows.flows() if is_drop(flow.instructions)
    ]
    assert sent_by(flows) == Sends(records, answers)
    change = diff(plain, flows)
    assert not change.adds
    assert not change.deletes
    reasons = {why[0] for _, new in change.changes if (why := read_cookie(new.cookie))}
    assert reasons <= DROPS
    assert (reasons == {Reason.REJECTED}) is (answers and not records)


def test_only_where_something_is_rejected() -> None:
    def flows(*, answers: bool) -> FlowSet:
        return Compiler().compile(DENIES, assume(DENIES), Sends(answers=answers)).flows

    assert not diff(flows(answers=False), flows(answers=True))


def test_a_first_reject_compiles_one_frame_again() -> None:
    compiler, bindings = Compiler(), assume(DENIES)
    before = compiler.compile(REJECTS, bindings).flows.parts
    after = compiler.compile(REJECTS, bindings, Sends(answers=True)).flows.parts
    assert {name for name, part in after.items() if before[name] is not part} == {"standing"}


def test_every_reason_to_drop_is_recorded() -> None:
    drops: set[Reason] = set()
    others: set[Reason] = set()
    for document in sorted(GOLDEN.glob("*.policy.yaml")):
        known = parse(document.read_text(), document.name)
        for flow in compile_policy(known, assume(known)).flows.flows():
            why = read_cookie(flow.cookie)
            assert why is not None
            (others if flow.instructions else drops).add(why[0])
    assert drops - DROPS == NOT_RECORDED
    assert not others & DROPS
    assert DROPS - drops <= {Reason.UPLINK_TAGGED, Reason.UNTRUSTED}
