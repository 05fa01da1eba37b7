"""Rule identity end to end, on flows as they are compiled."""

from __future__ import annotations

import pytest

from ovsfw.cli.compile import assume
from ovsfw.compiler import compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.identity import Admission, Drop, Identity
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.policy.document import parse
from ovsfw.policy.model import Direction

POLICY = parse(
    """
security_groups:
  - id: web
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 82}
      - {id: ssh, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: web}
      - {id: out, direction: egress}
tiers:
  - {id: operator, rules: [{id: no-ssh, action: deny, direction: ingress, protocol: tcp, remote_group_id: web}]}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [web]}
""",
    "test",
)
RULES = {rule.id: rule for rule in POLICY.security_groups["web"].rules}
BINDINGS = assume(POLICY)
FLOWS = list(compile_policy(POLICY, BINDINGS).flows.flows())


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(POLICY, BINDINGS)


def test_from_a_rule_to_its_flows_and_back(identity: Identity) -> None:
    """80-82 is two masks."""
    found = {name: list(identity.flows_of(rule, FLOWS)) for name, rule in RULES.items()}
    assert {name: len(flows) for name, flows in found.items()} == {"http": 2, "ssh": 1, "out": 1}
    for name, flows in found.items():
        for flow in flows:
            meaning = identity.flow(flow)
            assert meaning is not None
            assert (meaning.rule, meaning.owner) == (RULES[name], POLICY.security_groups["web"])
            assert meaning.direction is RULES[name].direction


def test_the_flows_of_a_tier_name_it(identity: Identity) -> None:
    (tier,) = POLICY.tiers
    (rule,) = tier.rules
    meanings = [meaning for flow in FLOWS if (meaning := identity.flow(flow)) and meaning.owner == tier]
    assert {meaning.rule for meaning in meanings} == {None, rule}
    assert sorted(meaning.reason.name for meaning in meanings) == ["GROUPS", "RULE", "TIER"]
    assert identity.owner_of(rule) == tier


def test_a_flow_of_an_endpoint_names_it(identity: Identity) -> None:
    named = {identity.flow(flow) for flow in FLOWS if flow.table == p.CLASSIFY.number}
    assert {meaning.endpoint for meaning in named if meaning and meaning.reason is Reason.CLASSIFY} == {"vm1", "vm2"}
    groups = [identity.flow(flow) for flow in FLOWS if flow.table == p.INGRESS_POLICY.number]
    assert sorted(meaning.endpoint for meaning in groups if meaning) == ["", "vm1", "vm2"]


def test_every_flow_has_a_meaning(identity: Identity) -> None:
    assert all(identity.flow(flow) for flow in FLOWS)
    assert identity.meaning(0, 0x1234) is None


def test_a_connection_names_its_rules(identity: Identity) -> None:
    label = identity.hint(RULES["ssh"]) << 32 | identity.hint(RULES["out"])
    mark = 2 << p.TARGET.first | 1 << p.ORIGIN.first | p.EGRESS_OK
    assert identity.connection(mark, label) == Admission("vm1", "vm2", RULES["out"], RULES["ssh"])
    assert identity.connection(mark | p.BLOCKED, label).blocked
    assert identity.connection(0, 0) == Admission()


def test_a_drop_names_its_endpoint_direction_and_reason(identity: Identity) -> None:
    denied = cookie(Reason.DENIED)
    assert identity.drop(p.INGRESS_VERDICT.number, denied, 2) == Drop("vm2", Direction.INGRESS, Reason.DENIED)
    assert identity.drop(p.EGRESS_VERDICT.number, denied) == Drop("", Direction.EGRESS, Reason.DENIED)
    spoof = cookie(Reason.SPOOF)
    assert identity.drop(p.SPOOF_GUARD.number, spoof, 1 | p.PAIRED) == Drop("vm1", Direction.EGRESS, Reason.SPOOF)
    assert identity.drop(p.SPOOF_GUARD.number, 77) is None
