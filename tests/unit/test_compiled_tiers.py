"""Tiers as flows: what a change costs, and what they cost at all."""

from __future__ import annotations

from dataclasses import replace

from ovsfw.cli.compile import assume
from ovsfw.compiler import Compiler, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.stats import stats
from ovsfw.openflow.diff import diff
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Action, Direction, Policy, Port, PortRange, RemoteGroup, Rule, Tier
from ovsfw.policy.model import SecurityGroup as Group

PORTS = 50


def rule(port: int, action: Action = Action.DENY) -> Rule:
    """A rule of one port mask with a remote set."""
    ports = PortRange(port, port)
    return Rule(f"r{port}", Direction.INGRESS, Family.IPV4, 6, ports, remote=RemoteGroup("all"), action=action)


def policy(*rules: Rule) -> Policy:
    ports = {
        f"vm{n}": Port(f"vm{n}", 0x525400000000 + n, (Prefix(Family.IPV4, 0x0A000000 + n, 32),), (), ("all",))
        for n in range(1, PORTS + 1)
    }
    tiers = (Tier("first", rules=rules), Tier("second", rules=tuple(replace(r, id=f"second-{r.id}") for r in rules)))
    return Policy(ports, {"all": Group("all")}, {}, tiers if rules else ())


def test_a_rule_in_the_middle_changes_its_own_flows_and_one_list() -> None:
    rules = [rule(port, action) for port, action in enumerate(Action, 1)] + [rule(port) for port in range(10, 40)]
    before = policy(*rules)
    tier = before.tiers[0]
    after = replace(before, tiers=(replace(tier, rules=(rule(99, Action.PASS), *tier.rules)), before.tiers[1]))
    for one, other in ((before, after), (after, before)):
        change = diff(compile_policy(one, assume(before)).flows, compile_policy(other, assume(before)).flows)
        assert len(change.adds) + len(change.deletes) == 2, "its conjunction, and its clause"
        assert [old.table for old, _ in change.changes] == [p.INGRESS_TIERS.number]


def test_two_rules_that_change_places_change_one_list() -> None:
    before = policy(rule(1), rule(2, Action.ALLOW))
    after = replace(before, tiers=(replace(before.tiers[0], rules=before.tiers[0].rules[::-1]), before.tiers[1]))
    change = diff(compile_policy(before, assume(before)).flows, compile_policy(after, assume(before)).flows)
    assert (len(change.adds), len(change.deletes), len(change.changes)) == (0, 0, 1)


def test_a_changed_tier_compiles_no_endpoint_and_no_network_again() -> None:
    compiler, bindings = Compiler(), assume(policy())
    once = compiler.compile(policy(rule(1), rule(2), rule(3), rule(4)), bindings).flows.parts
    again = compiler.compile(policy(rule(1), rule(2), rule(3), rule(4), rule(5)), bindings).flows.parts
    assert {name for name, part in again.items() if once[name] is not part} == {("tier", "first"), ("tier", "second")}


def test_flows_are_added_and_not_multiplied() -> None:
    """Rules share the members, and endpoints the rules."""
    without, bindings = policy(), assume(policy())
    base = stats(without, bindings, compile_policy(without, bindings))
    several = policy(*(rule(port) for port in range(1, 31)))
    found = stats(several, bindings, compile_policy(several, bindings))
    assert found.rule_masks == 60
    assert found.flows - base.flows == 2 * 60 + PORTS + 2, "two for each rule, one for each member, two lists"
    assert found.flows <= found.budget
