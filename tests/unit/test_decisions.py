"""The log of decisions: what the document says, what flows do for it, the lines, and the thread that writes them."""

from __future__ import annotations

import json
import os
import threading
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsfw.cli.compile import assume
from ovsfw.compiler import Compiler
from ovsfw.compiler.identity import Identity
from ovsfw.compiler.pipeline import EGRESS_VERDICT, INGRESS_RULES_V4, INGRESS_VERDICT, Reason, cookie
from ovsfw.compiler.recording import LOG_ACCEPTED, LOG_DROPPED, Sends, is_drop, sent_by
from ovsfw.errors import ConfigError, PolicyError
from ovsfw.explain.decisions import decision
from ovsfw.explain.journal import WAITING, Lines
from ovsfw.openflow.action import Copy, decode_actions, encode_actions
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.openflow.text import FlowTextError, format_actions, parse_flow
from ovsfw.policy.decisions import logs_anything
from ovsfw.policy.document import parse
from ovsfw.policy.model import Log, Policy
from ovsfw.policy.writing import as_document
from tests.running import until
from tests.strategies import bindings_for, policies

some = settings(
    max_examples=int(os.environ.get("OVSFW_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
POLICY = """
security_groups:
  - id: web
    log: dropped
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80, log: accepted}
      - {id: https, direction: ingress, protocol: tcp, port_range_min: 443, port_range_max: 443}
tiers:
  - {id: top, rules: [{id: no-smtp, direction: egress, protocol: tcp, action: deny, log: all}]}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}]}
"""


def test_a_compiler_that_has_sent_other_copies_compiles_the_same() -> None:
    policy = parse(POLICY, "policy")
    compiler, bindings = Compiler(), assume(policy)
    every = [Sends(records, answers, logs) for logs, answers, records in product((False, True), repeat=3)]
    for sends in (*every, *reversed(every)):
        fresh = Compiler().compile(policy, bindings, sends).flows.flat
        assert compiler.compile(policy, bindings, sends).flows.flat == fresh, sends


@some
@given(policies(), st.data())
def test_a_log_adds_copies_and_changes_nothing_else(policy: Policy, data: st.DataObject) -> None:
    bindings = data.draw(bindings_for(policy))
    plain, logged = (Compiler().compile(policy, bindings, Sends(logs=logs)) for logs in (False, True))
    before = {flow.key: flow for flow in plain.flows.flows()}
    assert sent_by(plain.flows) == Sends()
    assert before.keys() <= logged.flows.flat.keys()
    for flow in logged.flows.flows():
        if flow.key in before:
            rest = tuple(action for action in flow.actions if not isinstance(action, Copy))
            assert (flow.cookie, rest) == (before[flow.key].cookie, before[flow.key].actions)
        else:
            assert flow.table in (EGRESS_VERDICT.number, INGRESS_VERDICT.number)
            assert flow.cookie >> 32 == cookie(Reason.DENIED) >> 32
            assert flow.actions == (LOG_DROPPED,)


def test_whose_decisions_are_logged() -> None:
    policy = parse(POLICY, "t")
    assert logs_anything(policy)
    program = Compiler().compile(policy, assume(policy), Sends(logs=True))
    identity = Identity(policy, assume(policy))
    found = set()
    for flow in program.flows.flows():
        meaning = identity.flow(flow)
        for action in flow.actions:
            if isinstance(action, Copy):
                assert meaning is not None
                found.add((meaning.rule.id if meaning.rule else meaning.endpoint, meaning.table, action))
    assert found == {
        ("http", "ingress_rules_v4", LOG_ACCEPTED),
        ("no-smtp", "egress_rules_v4", LOG_DROPPED),
        ("vm1", "ingress_verdict", LOG_DROPPED),
        ("vm1", "egress_verdict", LOG_DROPPED),
    }


def test_what_is_logged_is_recorded_too() -> None:
    policy = parse(POLICY, "t")
    both = Compiler().compile(policy, assume(policy), Sends(records=True, logs=True)).flows
    assert sent_by(both) == Sends(records=True, logs=True)
    assert sent_by(Compiler().compile(policy, assume(policy), Sends(logs=True)).flows) == Sends(logs=True)
    drops = [flow for flow in both.flows() if LOG_DROPPED in flow.actions and flow.table == INGRESS_VERDICT.number]
    assert [len(flow.actions) for flow in drops] == [2]
    assert all(is_drop(flow.instructions) for flow in drops)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("security_groups: [{id: g, rules: [{direction: egress, log: dropped}]}]", "drops nothing"),
        ("security_groups: [{id: g, rules: [{direction: egress, log: yes}]}]", "use accepted, dropped or all"),
        ("security_groups: [{id: g, log: most}]", "use accepted, dropped or all"),
        ("tiers: [{id: t, rules: [{direction: egress, action: deny, log: accepted}]}]", "accepts nothing; use dropped"),
        ("tiers: [{id: t, rules: [{direction: egress, action: pass, log: all}]}]", "decides nothing"),
    ],
)
def test_logs_that_would_stay_empty_are_refused(rule: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        parse(rule, "t")


def test_of_rules_that_say_the_same_one_that_logs_is_enough() -> None:
    one, other = "{direction: egress}", "{direction: egress, log: all}"
    for rules in (f"{one}, {other}", f"{other}, {one}"):
        (rule,) = parse(f"security_groups: [{{id: g, rules: [{rules}]}}]", "t").security_groups["g"].rules
        assert rule.log is Log.ALL


def test_a_log_survives_being_written() -> None:
    policy = parse(POLICY, "t")
    assert parse(json.dumps(as_document(policy)), "t") == policy


def test_what_is_not_known_is_left_out() -> None:
    """A rule that has left the policy, a packet cut short, a broadcast that is judged for many at once."""
    policy = parse(POLICY, "t")
    identity = Identity(policy, assume(policy))
    gone = PacketIn(INGRESS_RULES_V4.number, cookie(Reason.RULE, 0x80000001), b"\1", {5: 1, 9: 0x80000001})
    line = decision(identity, gone, 0.0)
    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "verdict": "accepted",
        "direction": "ingress",
        "port": "vm1",
        "reason": "a rule accepted it",
    }
    for_many = decision(identity, gone._replace(registers={**gone.registers, 10: 1}), 0.0)
    assert for_many is not None
    assert "port" not in for_many
    assert decision(identity, gone._replace(cookie=5), 0.0) is None


def test_a_copy_is_read_as_it_was_written() -> None:
    for copy in (LOG_ACCEPTED, Copy(0, 1, 0xFFFF)):
        assert decode_actions(encode_actions((copy,))) == (copy,)
        assert parse_flow(f"table=3,priority=4 actions={format_actions((copy,))}").actions == (copy,)
    with pytest.raises(FlowTextError, match="max_len, id and meter_id are needed"):
        parse_flow("table=3,priority=4 actions=controller(id=5)")


# --- The thread that writes -------------------------------------------------------------------------------------------


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path) -> None:
    file = tmp_path / "decisions.json"
    lines = Lines(str(file))
    lines.give("one")
    until(lambda: file.read_text() == "one\n", "not written")
    file.rename(tmp_path / "old")
    lines.reopen()
    lines.give("two")
    lines.close()
    assert (file.read_text(), (tmp_path / "old").read_text()) == ("two\n", "one\n")


def test_who_gives_lines_never_waits_and_what_is_lost_is_told(tmp_path: Path) -> None:
    """A pipe that nobody reads stops the thread, and nothing else."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    lines = Lines(str(pipe))
    for _ in range(3 * WAITING):
        lines.give("x" * 200)
    os.set_blocking(reader, True)
    found: list[str] = []

    def read() -> None:
        with open(reader, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            while line := file.readline():
                found.append(line)

    threading.Thread(target=read, daemon=True).start()

    def lost() -> list[str]:
        lines.give("y")
        return [line for line in found if line.startswith("{")]

    assert json.loads(until(lost, "nobody says what is lost")[0])["lost"] > 0


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--log-decisions: cannot write to .*: Is a directory"):
        Lines(str(tmp_path))
