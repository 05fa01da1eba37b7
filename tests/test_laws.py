"""The laws of the design, as properties.  Law 2 is in tests/ovs/test_law2.py, law 6 in tests/ovs/test_channel.py."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsfw.compiler import NEUTRON, STANDALONE, Binding, Bindings, Compiler, Hook, Program, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.groups import RULE_TABLE, SAYS, data_of
from ovsfw.compiler.hook import LOCAL_IPS
from ovsfw.compiler.ids import rule_hints
from ovsfw.compiler.pipeline import Reason, is_ours, read_cookie
from ovsfw.compiler.standing import standing_flows
from ovsfw.errors import PolicyError, SwitchError
from ovsfw.lab.shapes import shape
from ovsfw.openflow import match as m
from ovsfw.openflow.action import NORMAL, Conjunction, Ct, Load, Output, Resubmit, decode_actions, whole
from ovsfw.openflow.diff import diff
from ovsfw.openflow.flow import Flow, FlowSet, flow
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import (
    MAX_GROUPS,
    AddressGroup,
    Claim,
    Direction,
    Policy,
    Port,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)
from ovsfw.reconciler import Reconciler
from tests import strategies
from tests.fakes import FakeSwitch

MAX_FLOW = 65535 - 200
MAX_RESUBMITS = 4096
both_hooks = pytest.mark.parametrize("hook", [STANDALONE, NEUTRON], ids=["standalone", "neutron"])
# A run draws some thousand situations all the same: a dozen laws, most of them for both hooks, some of a whole history.
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "40"))
relaxed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Policy, Bindings]:
    policy = draw(strategies.policies().flatmap(strategies.with_source_ports))
    return policy, draw(strategies.bindings_for(policy))


def compiled(situation: tuple[Policy, Bindings], hook: Hook = STANDALONE) -> Program:
    return compile_policy(*situation, hook)


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


def test_the_whole_world_everywhere_compiles() -> None:
    worlds = tuple(map(Prefix.parse, ("0.0.0.0/0", "::/0")))
    remotes = (None, *worlds, RemoteAddressGroup("all"), RemoteGroup("all"))
    rules = tuple(
        Rule(f"{direction.value}-{family}-{number}", direction, family, remote=remote)
        for direction in Direction
        for family in Family
        for number, remote in enumerate(remotes)
        if not isinstance(remote, Prefix) or remote.family is family
    )
    ports = {
        f"port-{n}": Port(
            f"port-{n}",
            strategies.mac(n),
            pairs=tuple(Claim(mac, world) for world in worlds for mac in (strategies.mac(n), 0x00005E000101)),
            security_groups=("all",),
        )
        for n in (1, 2)
    }
    policy = Policy(
        ports, {"all": SecurityGroup("all", rules=rules)}, {"all": AddressGroup("all", prefixes=tuple(sorted(worlds)))}
    )
    program = compile_policy(policy, Bindings((Binding("port-1", 1), Binding("port-2", 2))))
    assert_one_answer(program)


def test_too_many_groups_are_refused() -> None:
    compiled(everybody(1, MAX_GROUPS, MAX_GROUPS))
    with pytest.raises(PolicyError, match=r"port .* has 501 security groups; Open vSwitch can take 500"):
        compiled(everybody(1, MAX_GROUPS + 1, MAX_GROUPS + 1))


def test_every_long_list_of_ports_begins_at_its_first_page() -> None:
    """Two classes of 3,500 endpoints: the second must not go on at the page where the first has ended."""
    program = compiled(everybody(7000, 2, 1))
    turning = [entry.actions for entry in program.flows.flows() if Load(whole(p.OUTPUT_PAGE), 1) in entry.actions]
    assert len(turning) == 3, "flooding, and each class"
    assert {actions[-1] for actions in turning} == {Load(whole(p.OUTPUT_PAGE), 0)}


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


@both_hooks
@relaxed
@given(history=st.lists(situations(), min_size=1, max_size=4))
def test_only_the_last_policy_matters(hook: Hook, history: list[tuple[Policy, Bindings]]) -> None:
    last = history[-1]
    fresh = compiled(last, hook)
    for journey in (history, [*reversed(history), last], [*history, *history]):
        switch = FakeSwitch()
        reconciler = Reconciler(switch, hook)
        for policy, bindings in journey:
            asyncio.run(reconciler.step(policy, bindings))
        assert switch.flows == fresh.flows.flat
        assert {ofport for ofport, on in switch.flagged.items() if on} >= {
            ofport for ofport, on in fresh.no_flood.items() if on
        }
        bundles = switch.bundles
        assert not asyncio.run(reconciler.step(*last))
        assert switch.bundles == bundles


events = st.sampled_from(("policy", "bindings", "both", "unknown", "doubt", "replug", "vandal", "before", "after"))


@relaxed
@given(st.lists(situations(), min_size=2, max_size=3), st.lists(events, max_size=12), st.data())
def test_no_history_shows(seen: list[tuple[Policy, Bindings]], history: list[str], data: st.DataObject) -> None:
    """Policy and bindings come apart, late or never; bundles fail; ports lose flags; somebody meddles, and is seen."""
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    policy, bindings = seen[0]
    told, settings_hold = bindings, False
    for happening in history:
        chosen = data.draw(st.sampled_from(seen))
        policy = chosen[0] if happening in ("policy", "both", "before", "after") else policy
        bindings = chosen[1] if happening in ("bindings", "both", "before", "after") else bindings
        meddle(switch, reconciler, happening)
        known = None if happening == "unknown" else policy
        # As the daemon has it: the switch tells when ports come and go, and the database what is plugged in.
        settings_hold = settings_hold and happening != "replug" and bindings is told
        try:
            asyncio.run(reconciler.step(known, bindings, settings_hold=settings_hold))
            told, settings_hold = bindings, known is not None
        except SwitchError:
            assert happening in ("before", "after")
        switch.fail_next = ""
    asyncio.run(reconciler.step(policy, bindings))
    fresh = compile_policy(policy, bindings)
    assert switch.flows == fresh.flows.flat
    assert {ofport: switch.flagged[ofport] for ofport in fresh.no_flood} == fresh.no_flood
    assert switch.fragments
    done = list(switch.log)
    assert not asyncio.run(reconciler.step(policy, bindings))
    assert switch.log == done


def meddle(switch: FakeSwitch, reconciler: Reconciler, happening: str) -> None:
    if happening in ("before", "after"):
        switch.fail_next = happening
    elif happening == "replug":
        switch.flagged.update(dict.fromkeys(switch.flagged, False))
    elif happening == "vandal":
        for key in list(switch.flows)[::3]:
            del switch.flows[key]
        switch.flows.update([flow(p.DELIVER.number, 999, (), (NORMAL,), 0)])
    if happening in ("doubt", "vandal"):
        reconciler.doubt()


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
    once, again = (compiler.compile(*situation).flows.parts for _ in range(2))
    assert [name for name, part in once.items() if again[name] is not part] == []


# --- 5, 8. From any leftovers one step converges, and what is not ours is not touched -------------------------------


@st.composite
def leftovers(draw: st.DrawFn) -> Flow:
    """Anybody's flow: in our tables, in the hook with our cookie or another, or elsewhere."""
    table = draw(st.sampled_from((0, 0, 50, 60, 100, 111, 139, 140, 200)))
    cookie = draw(st.sampled_from((0, 7, p.OWNER << 48, p.OWNER << 48 | 99 << 40 | 5)))
    term = m.IN_PORT(draw(st.integers(1, 60)))
    return flow(table, draw(st.sampled_from((0, 10, 1030, 65535))), (term,), (), cookie)


@both_hooks
@relaxed
@given(
    situation=situations(),
    strange=st.lists(leftovers(), max_size=8),
    before=st.tuples(situations(), st.sampled_from((STANDALONE, NEUTRON))),
    data=st.data(),
)
def test_one_step_converges_from_any_leftovers(
    hook: Hook,
    situation: tuple[Policy, Bindings],
    strange: list[Flow],
    before: tuple[tuple[Policy, Bindings], Hook],
    data: st.DataObject,
) -> None:
    """Also those of a filter that hung elsewhere."""
    half = [entry for entry in compiled(*before).flows.flows() if data.draw(st.booleans())][:40]
    switch = FakeSwitch([*half, *strange])
    foreign = {key: value for key, value in switch.flows.items() if not is_ours(Flow(key, value))}
    asyncio.run(Reconciler(switch, hook).step(*situation))
    ours = compiled(situation, hook).flows.flat
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


@both_hooks
@relaxed
@given(situation=situations())
def test_every_flow_decodes_and_encodes_to_the_same_bytes(hook: Hook, situation: tuple[Policy, Bindings]) -> None:
    for entry in compiled(situation, hook).flows.flows():
        assert flow(entry.table, entry.priority, entry.match, entry.actions, entry.cookie) == entry


# --- 7. Same input, same bytes --------------------------------------------------------------------------------------

_DUMP = """
import hashlib, sys
from ovsfw.cli.compile import assume
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


@relaxed
@given(situations())
def test_the_order_of_ports_groups_and_rules_does_not_show(situation: tuple[Policy, Bindings]) -> None:
    policy, bindings = situation
    turned = replace(
        policy,
        ports={name: policy.ports[name] for name in sorted(policy.ports, reverse=True)},
        security_groups={
            name: replace(policy.security_groups[name], rules=policy.security_groups[name].rules[::-1])
            for name in sorted(policy.security_groups, reverse=True)
        },
        address_groups={name: policy.address_groups[name] for name in sorted(policy.address_groups, reverse=True)},
        networks={name: policy.networks[name] for name in sorted(policy.networks, key=str, reverse=True)},
    )
    assert compile_policy(turned, bindings).flows.flat == compiled(situation).flows.flat


# --- 9. Every flow can say why --------------------------------------------------------------------------------------


@both_hooks
@relaxed
@given(situation=situations())
def test_every_flow_names_its_rule_or_reason(hook: Hook, situation: tuple[Policy, Bindings]) -> None:
    policy, bindings = situation
    hints = rule_hints(policy)
    ofports = {bound.ofport for bound in bindings.endpoints} | {uplink.ofport for uplink in bindings.uplinks}
    standing = {entry.key for entry in standing_flows(hook)}
    for entry in compiled(situation, hook).flows.flows():
        why = read_cookie(entry.cookie)
        assert why is not None
        reason, hint = why
        if entry.key in standing:
            assert reason is not Reason.RULE
        elif reason is Reason.RULE:
            loads = [action.value for action in entry.actions if isinstance(action, Load)]
            helped = p.HELPED if hints[hint].helper and not is_about_data(entry) else 0
            assert loads == [(hint & ~p.HINT_BIT) | SAYS[hints[hint].action] | helped]
            assert speaks_for(entry, hints[hint])
        elif reason in ABOUT_PORTS:
            assert hint in ofports
        elif reason in ABOUT_NETWORKS:
            assert hint in {bound.vlan or p.UNTAGGED for bound in bindings.endpoints}
        else:
            assert reason in {Reason.GROUPS, Reason.TIER, Reason.MEMBER} | OF_HELPERS


OF_HELPERS = {Reason.HELPER, Reason.COMMIT, Reason.UNEXPECTED}
ABOUT_NETWORKS = {Reason.FLOOD, Reason.TRUSTED, Reason.UNTRUSTED}
ABOUT_PORTS = {
    Reason.CLASSIFY,
    Reason.SOURCE,
    Reason.ARP,
    Reason.NEIGHBOUR,
    Reason.DHCP_CLIENT,
    Reason.FORWARD,
    Reason.DELIVER,
    Reason.UNKNOWN_PORT,
    Reason.UPLINK,
    Reason.UPLINK_TAGGED,
    Reason.ESTABLISHED,
    Reason.EXPECTED,
}


def is_about_data(entry: Flow) -> bool:
    """Whether it says of a rule with a helper what that may expect."""
    return any(term.field is p.GROUP and term.value >= p.HINT_BIT | p.DATA for term in entry.match)


def speaks_for(entry: Flow, rule: Rule) -> bool:
    """Whether a flow could be this rule's: its table, protocol and kind of remote."""
    if is_about_data(entry):
        return any(speaks_for_rule(entry, about) for about in data_of(rule))
    return speaks_for_rule(entry, rule)


def speaks_for_rule(entry: Flow, rule: Rule) -> bool:
    terms = {term.field: term.value for term in entry.match}
    remote = {m.IPV4_SRC, m.IPV6_SRC, m.IPV4_DST, m.IPV6_DST}.intersection(terms)
    return (
        entry.table == RULE_TABLE[rule.direction, rule.family].number
        and terms.get(m.IP_PROTO) == rule.protocol
        and (m.CONJ_ID in terms) is isinstance(rule.remote, RemoteGroup | RemoteAddressGroup)
        and bool(remote) is isinstance(rule.remote, Prefix)
    )


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
    outputs = {action.port for entry in program.flows.flows() for action in entry.actions if isinstance(action, Output)}
    assert outputs == {NORMAL.port}


@relaxed
@given(situations())
def test_only_known_endpoints_are_ever_output_to(situation: tuple[Policy, Bindings]) -> None:
    """And whatever is neither known nor an uplink is dropped in the hook, and kept out of flooding."""
    policy, bindings = situation
    program = compiled(situation)
    secured = {
        bound.ofport
        for bound in bindings.endpoints
        if bound.port_id in policy.ports and policy.ports[bound.port_id].port_security
    }
    open_ports = {bound.ofport for bound in bindings.endpoints if bound.port_id in policy.ports} - secured
    outputs = {
        action.port
        for instructions in {entry.instructions for entry in program.flows.flows()}
        for action in decode_actions(instructions)
        if isinstance(action, Output)
    }
    assert outputs - {NORMAL.port} == secured
    assert program.no_flood == {bound.ofport: bound.ofport not in open_ports for bound in bindings.endpoints}
    hook = [entry for entry in program.flows.flows() if entry.table == p.CLASSIFY.number]
    assert [entry.actions for entry in hook if not entry.match] == [()]
    passing = {entry.match[0].value for entry in hook if entry.actions}
    assert passing == secured | open_ports | {uplink.ofport for uplink in bindings.uplinks}


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


def test_the_judge_of_overlaps_can_say_yes_and_no() -> None:
    ten, eleven = m.IPV4_SRC(0x0A000000, 0xFF000000), m.IPV4_SRC(0x0B000000, 0xFF000000)
    assert overlap((), (ten,))
    assert overlap((ten,), (m.IPV4_SRC(0x0A010203),))
    assert overlap((ten, m.IP_PROTO(6)), (m.TCP_DST(80), ten))
    assert not overlap((ten,), (eleven,))
    assert not overlap((ten, m.IP_PROTO(6)), (ten, m.IP_PROTO(17)))


@lru_cache(maxsize=10_000)  # each is compared with all others of its rank
def kind(entry: Flow) -> str:
    """Which of several rules that allow is found does not matter; clauses of conjunctions are meant to overlap."""
    if entry.actions and all(isinstance(action, Conjunction) for action in entry.actions):
        return "clause"
    allows = any(isinstance(action, Load) and action.value & p.HINT_BIT for action in entry.actions)
    found = read_cookie(entry.cookie)
    return "rule" if found is not None and found[0] is Reason.RULE and allows else "plain"


def has_one_answer(one: Flow, other: Flow) -> bool:
    """Two flows of one table and priority; the flow of a conjunction is asked for only when its clauses have met."""
    kinds = {kind(one), kind(other)}
    if kinds in ({"rule"}, {"clause"}) or one.instructions == other.instructions:
        return True
    if "clause" in kinds:
        whole_rule = other if kind(one) == "clause" else one
        if any(term.field is m.CONJ_ID for term in whole_rule.match):
            return True
    return not overlap(one.match, other.match)


@both_hooks
@relaxed
@given(situation=situations())
def test_no_packet_has_two_answers(hook: Hook, situation: tuple[Policy, Bindings]) -> None:
    assert_one_answer(compiled(situation, hook))


def assert_one_answer(program: Program) -> None:
    same_rank: dict[tuple[int, int], list[Flow]] = defaultdict(list)
    for entry in program.flows.flows():
        same_rank[entry.table, entry.priority].append(entry)
    for entries in same_rank.values():
        for one, other in itertools.combinations(entries, 2):
            assert has_one_answer(one, other), (one, other)


@both_hooks
def test_every_way_leads_to_a_table_that_is_there(hook: Hook) -> None:
    program = compiled(everybody(3, 3, 2), hook)
    tables = {entry.table for entry in program.flows.flows()}
    if hook.inside:
        # That of others; nothing there is no harm, for the packet goes on by itself.
        tables.add(LOCAL_IPS)
    for entry in program.flows.flows():
        for action in entry.actions:
            if isinstance(action, Resubmit | Ct) and action.table is not None:
                assert action.table in tables
