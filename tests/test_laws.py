"""The laws of the design, as properties.  Law 2 is in tests/ovs/test_law2.py, law 6 in tests/ovs/test_channel.py."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsfw.compiler import Binding, Bindings, Compiler, Program, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.ids import rule_hints
from ovsfw.compiler.pipeline import Reason, is_ours, read_cookie
from ovsfw.errors import SwitchError
from ovsfw.lab.shapes import shape
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Conjunction, Ct, Load, Resubmit
from ovsfw.openflow.diff import diff
from ovsfw.openflow.flow import Flow, FlowSet, flow
from ovsfw.policy.model import Direction, Family, Policy, Port, Prefix, Rule, SecurityGroup
from ovsfw.reconciler import Reconciler
from tests import strategies
from tests.fakes import FakeSwitch

MAX_FLOW = 65535 - 200
MAX_RESUBMITS = 4096
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def situations(draw: st.DrawFn) -> tuple[Policy, Bindings]:
    policy = draw(strategies.policies())
    return policy, draw(strategies.bindings_for(policy))


def compiled(situation: tuple[Policy, Bindings]) -> Program:
    return compile_policy(*situation)


def everybody(count: int, groups: int, each: int) -> tuple[Policy, Bindings]:
    """Many endpoints in one network, with as many lists of groups as there can be."""
    rules = tuple(Rule(f"rule-{n}", Direction.INGRESS, Family.IPV4, 17) for n in range(1))
    named = {f"g{n}": SecurityGroup(f"g{n}", rules=rules if n == 0 else ()) for n in range(groups)}
    lists = itertools.cycle(itertools.combinations(sorted(named), each))
    ports = {
        f"port-{n}": Port(f"port-{n}", strategies.mac(n), (Prefix(Family.IPV4, n, 32),), (), next(lists))
        for n in range(1, count + 1)
    }
    return Policy(ports, named), Bindings(tuple(Binding(f"port-{n}", n) for n in range(1, count + 1)))


# --- 1. Compile succeeds on every valid policy ----------------------------------------------------------------------


@relaxed
@given(situations())
def test_every_policy_compiles(situation: tuple[Policy, Bindings]) -> None:
    assert len(compiled(situation).flows.flat) > 100


@pytest.mark.parametrize(("count", "groups", "each"), [(0, 1, 1), (1000, 40, 2), (7000, 2, 1), (3, 100, 100)])
def test_extreme_hosts_compile_to_flows_that_a_switch_takes(count: int, groups: int, each: int) -> None:
    program = compiled(everybody(count, groups, each))
    assert max(len(key) + len(value) for key, value in program.flows.items()) < MAX_FLOW


@pytest.mark.parametrize(("count", "groups", "each"), [(500, 40, 2), (1000, 20, 5), (2000, 80, 3)])
def test_no_broadcast_costs_more_resubmits_than_a_pass_may(count: int, groups: int, each: int) -> None:
    program = compiled(everybody(count, groups, each))
    by_table = defaultdict(list)
    for entry in program.flows.flows():
        by_table[entry.table].append(entry)

    def cost(table: int) -> int:
        """The most that looking up in a table can cost, following every resubmit; a page costs its own classes."""
        return 1 + max((sum(steps(entry)) for entry in by_table[table]), default=0)

    def steps(entry: Flow) -> list[int]:
        return [
            costs[action.table]
            for action in entry.actions
            if isinstance(action, Resubmit) and action.table != entry.table
        ]

    costs: dict[int, int] = {}
    order = [
        p.INGRESS_RULES_V6,
        p.INGRESS_RULES_V4,
        p.INGRESS_RULES,
        p.FAN_OUT_DELIVER,
        p.FAN_OUT_CLASS,
        p.FAN_OUT_PAGE,
    ]
    for table in order:
        # The two rule tables are alternatives of one lookup, which `max` already takes into account.
        costs[table.number] = cost(table.number)
    assert costs[p.FAN_OUT_PAGE.number] < MAX_RESUBMITS - 100


# --- 3, 4. Only the last policy matters; a second step sends nothing ------------------------------------------------


@relaxed
@given(st.lists(situations(), min_size=1, max_size=4))
def test_only_the_last_policy_matters(history: list[tuple[Policy, Bindings]]) -> None:
    last = history[-1]
    fresh = compiled(last)
    for journey in (history, [*reversed(history), last], [*history, *history]):
        switch = FakeSwitch()
        reconciler = Reconciler(switch)
        for policy, bindings in journey:
            asyncio.run(reconciler.step(policy, bindings))
        assert switch.flows == fresh.flows.flat
        assert {ofport for ofport, on in switch.flagged.items() if on} >= {
            ofport for ofport, on in fresh.no_flood.items() if on
        }
        bundles = switch.bundles
        assert not asyncio.run(reconciler.step(*last))
        assert switch.bundles == bundles


@relaxed
@given(st.lists(situations(), min_size=2, max_size=4))
def test_a_compiler_with_a_past_compiles_the_same(history: list[tuple[Policy, Bindings]]) -> None:
    compiler = Compiler()
    for situation in history:
        assert compiler.compile(*situation).flows.flat == compiled(situation).flows.flat


@given(situations())
@relaxed
def test_an_unchanged_unit_is_the_same_object(situation: tuple[Policy, Bindings]) -> None:
    compiler = Compiler()
    once, again = compiler.compile(*situation), compiler.compile(*situation)
    assert all(again.flows.parts[name] is part for name, part in once.flows.parts.items())


# --- 5, 8. From any leftovers one step converges, and what is not ours is not touched -------------------------------


@st.composite
def leftovers(draw: st.DrawFn) -> Flow:
    """Anybody's flow: in our tables, in the hook with our cookie or another, or elsewhere."""
    table = draw(st.sampled_from((0, 0, 50, 60, 100, 111, 139, 140, 200)))
    cookie = draw(st.sampled_from((0, 7, p.OWNER << 48, p.OWNER << 48 | 99 << 40 | 5)))
    term = m.IN_PORT(draw(st.integers(1, 60)))
    return flow(table, draw(st.sampled_from((0, 10, 1030, 65535))), (term,), (), cookie)


@relaxed
@given(situations(), st.lists(leftovers(), max_size=8), situations(), st.data())
def test_one_step_converges_from_any_leftovers(
    situation: tuple[Policy, Bindings], strange: list[Flow], before: tuple[Policy, Bindings], data: st.DataObject
) -> None:
    half = [entry for entry in compiled(before).flows.flows() if data.draw(st.booleans())][:40]
    switch = FakeSwitch([*half, *strange])
    foreign = {key: value for key, value in switch.flows.items() if not is_ours(Flow(key, value))}
    asyncio.run(Reconciler(switch).step(*situation))
    ours = compiled(situation).flows.flat
    assert {key: value for key, value in switch.flows.items() if is_ours(Flow(key, value))} == ours
    assert {key: value for key, value in switch.flows.items() if key in foreign and key not in ours} == {
        key: value for key, value in foreign.items() if key not in ours
    }


@relaxed
@given(situations(), situations(), st.sampled_from(("before", "after")))
def test_a_failed_bundle_leaves_doubt_and_the_next_step_converges(
    first: tuple[Policy, Bindings], second: tuple[Policy, Bindings], when: str
) -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    asyncio.run(reconciler.step(*first))
    if not diff(compiled(first).flows, compiled(second).flows):
        return
    switch.fail_next = when
    with pytest.raises(SwitchError):
        asyncio.run(reconciler.step(*second))
    dumps = switch.dumps
    asyncio.run(reconciler.step(*second))
    assert switch.dumps == dumps + 1
    assert switch.flows == compiled(second).flows.flat


@relaxed
@given(situations(), situations())
def test_a_diff_does_what_it_says(first: tuple[Policy, Bindings], second: tuple[Policy, Bindings]) -> None:
    switch = FakeSwitch(compiled(first).flows.flows())
    asyncio.run(switch.apply(diff(compiled(first).flows, compiled(second).flows)))
    assert switch.flows == compiled(second).flows.flat
    assert not diff(compiled(second).flows, FlowSet.of(compiled(second).flows.flows()))


# --- 6. Decoding and encoding ---------------------------------------------------------------------------------------


@relaxed
@given(situations())
def test_every_flow_decodes_and_encodes_to_the_same_bytes(situation: tuple[Policy, Bindings]) -> None:
    for entry in compiled(situation).flows.flows():
        assert flow(entry.table, entry.priority, entry.match, entry.actions, entry.cookie) == entry


# --- 7. Same input, same bytes --------------------------------------------------------------------------------------

_DUMP = """
import hashlib, sys
from ovsfw.cli.compiling import assume
from ovsfw.compiler import compile_policy
from ovsfw.policy.document import parse
policy = parse(sys.stdin.read(), "stdin")
flows = compile_policy(policy, assume(policy)).flows
print(hashlib.sha256(b"".join(k + v for k, v in sorted(flows.items()))).hexdigest())
"""


def test_neither_hash_seed_nor_order_of_arrival_shows() -> None:
    document = shape("small")
    turned = {name: list(reversed(rows)) for name, rows in reversed(document.items())}
    prints = set()
    for seed, text in itertools.product(("0", "1", "77"), (json.dumps(document), json.dumps(turned))):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _DUMP], input=text, env=environment, capture_output=True, text=True, check=True
        )
        prints.add(done.stdout)
    assert len(prints) == 1


# --- 9. Every flow can say why --------------------------------------------------------------------------------------


@relaxed
@given(situations())
def test_every_flow_names_its_rule_or_reason(situation: tuple[Policy, Bindings]) -> None:
    policy, bindings = situation
    hints = rule_hints(policy)
    about_endpoints = {Reason.CLASSIFY, Reason.SOURCE, Reason.ARP, Reason.DELIVER, Reason.UNKNOWN_PORT}
    ofports = {bound.ofport for bound in bindings.endpoints}
    for entry in compiled(situation).flows.flows():
        why = read_cookie(entry.cookie)
        assert why is not None
        reason, hint = why
        if reason is Reason.RULE:
            assert hint in hints
            loads = [action.value for action in entry.actions if isinstance(action, Load)]
            assert loads == [hint]
        elif reason in about_endpoints and hint:
            assert hint in ofports


# --- 10. Not known is not empty -------------------------------------------------------------------------------------


@given(situations())
@relaxed
def test_nothing_is_touched_while_something_is_unknown(situation: tuple[Policy, Bindings]) -> None:
    policy, bindings = situation
    switch = FakeSwitch(compiled(situation).flows.flows())
    before = dict(switch.flows)
    reconciler = Reconciler(switch)
    assert asyncio.run(reconciler.step(None, bindings)) is None
    assert asyncio.run(reconciler.step(policy, None)) is None
    assert (switch.flows, switch.bundles, switch.dumps) == (before, 0, 0)


# --- 11. Fail closed ------------------------------------------------------------------------------------------------


def test_a_port_that_no_policy_knows_is_closed_both_ways() -> None:
    program = compile_policy(Policy(), Bindings((Binding("stranger", 5, 7),)))
    guards = [entry for entry in program.flows.flows() if m.IN_PORT(5) in entry.match]
    assert [entry.actions for entry in guards] == [()]
    assert program.no_flood == {5: True}
    assert not any(
        "5" in str(action)
        for entry in program.flows.flows()
        for action in entry.actions
        if entry.table == p.DELIVER.number
    )


# --- Ours: no packet has two answers --------------------------------------------------------------------------------


def overlap(one: m.Match, other: m.Match) -> bool:
    """Whether some packet matches both."""
    mine = {term.field: term for term in one}
    for term in other:
        same = mine.get(term.field)
        if same is None:
            continue
        full = (1 << term.field.bits) - 1
        common = (full if same.mask is None else same.mask) & (full if term.mask is None else term.mask)
        if (same.value ^ term.value) & common:
            return False
    return True


def is_rule(entry: Flow) -> bool:
    """It only accepts for a rule, or is part of a conjunction: which of several is found does not matter."""
    found = read_cookie(entry.cookie)
    only_conjunctions = bool(entry.actions) and all(isinstance(action, Conjunction) for action in entry.actions)
    return only_conjunctions or (found is not None and found[0] is Reason.RULE)


@settings(relaxed, max_examples=40)
@given(situations())
def test_no_packet_has_two_answers(situation: tuple[Policy, Bindings]) -> None:
    same_rank: dict[tuple[int, int], list[Flow]] = defaultdict(list)
    for entry in compiled(situation).flows.flows():
        same_rank[entry.table, entry.priority].append(entry)
    for entries in same_rank.values():
        plain = [(entry, entry.match) for entry in entries if not is_rule(entry)]
        for (one, matched), (other, also) in itertools.combinations(plain, 2):
            assert one.actions == other.actions or not overlap(matched, also), (one, other)


def test_every_way_leads_to_a_table_that_is_there() -> None:
    program = compiled(everybody(3, 3, 2))
    tables = {entry.table for entry in program.flows.flows()}
    for entry in program.flows.flows():
        for action in entry.actions:
            if isinstance(action, Resubmit | Ct) and action.table is not None:
                assert action.table in tables
