"""Copies of what is dropped: which flows send them, and that they still count as drops."""

from __future__ import annotations

from itertools import product

import pytest

from ovsfw.cli.compiling import assume
from ovsfw.compiler import Compiler, compile_policy
from ovsfw.compiler.pipeline import Reason, read_cookie
from ovsfw.compiler.recording import DROPS, is_answering, is_drop, is_recording
from ovsfw.openflow.diff import diff
from ovsfw.openflow.flow import FlowSet
from ovsfw.policy.model import Action
from tests.unit.test_compiled_tiers import policy, rule

DENIES, REJECTS = policy(rule(1)), policy(rule(1, Action.REJECT))


@pytest.mark.parametrize(("records", "answers"), list(product((False, True), repeat=2)))
def test_what_sends_copies_drops_as_before(*, records: bool, answers: bool) -> None:
    plain = compile_policy(REJECTS, assume(REJECTS)).flows
    flows = Compiler(records_drops=records).compile(REJECTS, assume(REJECTS), answers=answers).flows
    assert [flow.key for flow in plain.flows() if not flow.instructions] == [
        flow.key for flow in flows.flows() if is_drop(flow.instructions)
    ]
    assert (is_recording(flows), is_answering(flows)) == (records, answers)
    change = diff(plain, flows)
    assert not change.adds
    assert not change.deletes
    reasons = {why[0] for _, new in change.changes if (why := read_cookie(new.cookie))}
    assert reasons <= DROPS
    assert (reasons == {Reason.REJECTED}) is (answers and not records)


def test_only_where_something_is_rejected() -> None:
    def flows(*, answers: bool) -> FlowSet:
        return Compiler().compile(DENIES, assume(DENIES), answers=answers).flows

    assert not diff(flows(answers=False), flows(answers=True))


def test_a_first_reject_compiles_one_frame_again() -> None:
    compiler, bindings = Compiler(), assume(DENIES)
    before = compiler.compile(REJECTS, bindings, answers=False).flows.parts
    after = compiler.compile(REJECTS, bindings, answers=True).flows.parts
    assert {name for name, part in after.items() if before[name] is not part} == {"standing"}
