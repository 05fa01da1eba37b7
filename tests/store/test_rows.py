"""A policy, written as a document or as rows and read back, is the same policy."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovsfw.errors import PolicyError
from ovsfw.policy.addresses import Family
from ovsfw.policy.document import parse, read_values
from ovsfw.policy.model import Action, Direction, Network, Policy, PortRange, Position, Rule, SecurityGroup, Tier
from ovsfw.policy.schema import DocumentShape
from ovsfw.policy.writing import as_document
from ovsfw.store.rows import RULES, TABLES, Key, difference, document_of, rows_of
from tests.strategies import LOGS, policies, rules

some = settings(
    max_examples=int(os.environ.get("OVSFW_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def whole_policies(draw: st.DrawFn, max_ports: int = 5) -> Policy:
    """With networks and up to three tiers, in an order that is not that of their ids."""
    policy = draw(policies(max_ports))
    groups, sets = list(policy.security_groups), list(policy.address_groups)
    tiers = [
        Tier(
            name,
            position=draw(st.sampled_from(Position)),
            applies_to=draw(st.none() | st.lists(st.sampled_from(groups), unique=True, max_size=2).map(tuple)),
            rules=tuple(
                replace(draw(rules(f"{name}/{index}", groups, sets)), action=action, log=draw(LOGS[action]))
                for index, action in enumerate(draw(st.lists(st.sampled_from(Action), max_size=3)))
            ),
        )
        for name in draw(st.lists(st.sampled_from(["one", "two", "three"]), unique=True, max_size=3))
    ]
    names = draw(st.lists(st.sampled_from(["net", None]), unique=True))
    limits = {name: Network(name, connection_limit=draw(st.integers(1, 9))) for name in names}
    return replace(policy, tiers=tuple(tiers), networks=limits)


def read_back(policy: Policy) -> Policy:
    """As it comes out of a document; made-up policies may have routers that no document may have."""
    networks = {name: replace(network, routers=None) for name, network in policy.networks.items()}
    return read_values(json.loads(json.dumps(as_document(replace(policy, networks=networks)))), "t")


@some
@given(whole_policies())
def test_a_policy_survives_being_written(policy: Policy) -> None:
    """A made-up policy may have what a read one has in another form (all ports, for no ports), but only once."""
    once = read_back(policy)
    assert read_back(once) == once
    assert repr(read_back(once)) == repr(once)


@some
@given(whole_policies(), st.randoms(use_true_random=False))
def test_a_policy_survives_the_rows_in_any_order(policy: Policy, shuffle: random.Random) -> None:
    once = read_back(policy)
    rows = list(rows_of(once).items())
    shuffle.shuffle(rows)
    assert repr(read_values(document_of(dict(rows)), "t")) == repr(once)


@some
@given(whole_policies(), whole_policies())
def test_a_difference_makes_the_new_of_the_old(old: Policy, new: Policy) -> None:
    before, after = rows_of(read_back(old)), rows_of(read_back(new))
    found = difference(before, after)
    made = {key: columns for key, columns in before.items() if key not in found.delete}
    made |= found.insert
    for key, changed in found.update.items():
        made[key] = {**made[key], **changed}
    assert made == after
    assert not difference(after, after)


def test_every_list_of_the_document_has_a_table() -> None:
    """Whoever adds a list of objects to the document gives it a table, or the database would lose it.

    What the audit is told to be silent about is a matter of the document alone; importing it warns.
    """
    assert set(TABLES) == set(DocumentShape.model_fields) - {"audit_suppressions"}


def test_what_a_document_cannot_say_is_refused() -> None:
    """Without its source ports the rule would allow more."""
    rule = Rule("r", Direction.INGRESS, Family.IPV4, 6, source_ports=PortRange(1, 2))
    with pytest.raises(PolicyError, match="rule r asks for source ports"):
        rows_of(Policy(security_groups={"web": SecurityGroup("web", rules=(rule,))}))


def test_rows_that_are_no_policy() -> None:
    orphan: dict[str, Any] = {"id": "r", "document": "{}", "security_group": "gone"}
    with pytest.raises(ValueError, match="a security group that is not there: gone"):
        document_of({Key(RULES, "r"): orphan})
    with pytest.raises(ValueError, match=r"'\[\]' is no object"):
        document_of({Key("Port", "p"): {"id": "p", "document": "[]"}})


def test_problems_name_objects_by_their_ids() -> None:
    document: dict[str, Any] = {
        "security_groups": [{"id": "web", "rules": [{"id": "first", "direction": "up"}, {"direction": "in"}]}],
        "ports": [{"id": "vm1", "mac_address": "02:00:00:00:00:01", "fixed_ips": [{"ip_address": "1"}], "what is": 1}],
    }
    with pytest.raises(PolicyError) as caught:
        read_values(document, "here")
    assert sorted(problem.path for problem in caught.value.problems) == [
        "ports[vm1].fixed_ips[0].ip_address",
        "ports[vm1]['what is']",
        "security_groups[web].rules[1].direction",
        "security_groups[web].rules[first].direction",
    ]
    assert parse(json.dumps({"ports": []}), "t") == read_values({"ports": []}, "t")
