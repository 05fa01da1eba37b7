"""A policy, written as a document or as rows and read back, is the same policy."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ovsfw.errors import PolicyError
from ovsfw.policy.addresses import Family
from ovsfw.policy.document import judge_values, parse, read_values
from ovsfw.policy.model import (
    Action,
    AddressGroup,
    Direction,
    Network,
    Policy,
    Port,
    PortRange,
    Position,
    Rule,
    SecurityGroup,
    Tier,
)
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


EVERYTHING: dict[str, Any] = {
    "security_groups": [
        {
            "id": "web", "name": "the web", "log": "dropped",
            "rules": [
                {"id": "r1", "direction": "egress", "ethertype": "IPv6", "protocol": "tcp", "port_range_min": 80,
                 "port_range_max": 90, "remote_ip_prefix": "2001:db8::/64", "log": "all"},
                {"id": "r2", "direction": "ingress", "protocol": "icmp", "port_range_min": 3, "port_range_max": 4},
                {"id": "r3", "direction": "ingress", "protocol": "udp", "remote_group_id": "plain"},
                {"id": "r4", "direction": "ingress", "remote_address_group_id": "office"},
                {"id": "r5", "direction": "ingress", "protocol": "tcp", "port_range_min": 21, "port_range_max": 21,
                 "helper": "ftp"},
            ],
        },
        {"id": "plain", "stateful": False},
    ],
    "address_groups": [{"id": "office", "name": "the office", "addresses": ["192.0.2.0/24", "2001:db8::/32"]}],
    "ports": [
        {
            "id": "vm1", "name": "one", "mac_address": "52:54:00:00:00:01", "network_id": "net",
            "fixed_ips": [{"ip_address": "10.9.0.1"}, {"ip_address": "2001:db8::1"}],
            "allowed_address_pairs": [
                {"ip_address": "10.9.1.0/24"}, {"ip_address": "10.9.2.1", "mac_address": "52:54:00:00:00:09"}
            ],
            "security_groups": ["web"],
        },
        {"id": "vm2", "mac_address": "52:54:00:00:00:02", "port_security_enabled": False},
    ],
    "tiers": [
        {
            "id": "low", "name": "last", "position": "after", "applies_to": ["web"],
            "rules": [{"id": "t1", "direction": "ingress", "action": "deny", "protocol": 89, "log": "dropped"}],
        },
        {"id": "high", "rules": [{"id": "t2", "direction": "egress", "action": "pass", "remote_group_id": "web"}]},
    ],
    "networks": [
        {"id": "net", "dhcp_servers": ["10.9.0.2"], "routers": ["fe80::1"], "connection_limit": 9},
        {"connection_limit": 1},
    ],
    "assertions": [
        {"id": "a1", "from": "any", "to": ["vm1", "vm2"], "denied": ["tcp/1"], "ethertype": "IPv4",
         "except_to": ["vm2"], "except_from": ["vm2", "192.0.2.0/24"], "except_services": ["tcp/2"]},
        {"id": "a2", "from": "192.0.2.0/24", "to": "vm1", "allowed": "udp/53"},
    ],
}  # fmt: skip
"""A document with every attribute that there is, each once at least with another value than its default."""

NEEDED = {"id", "direction", "mac_address", "action", "ip_address", "from", "to", "denied", "allowed"}


def _paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Everything in a document that may be missing."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in items:
        if key not in NEEDED:
            yield (*path, key)
        yield from _paths(value, (*path, key))


def _without(found: Any, missing: Collection[tuple[Any, ...]], path: tuple[Any, ...] = ()) -> Any:
    if isinstance(found, dict):
        return {k: _without(v, missing, (*path, k)) for k, v in found.items() if (*path, k) not in missing}
    if isinstance(found, list):
        return [_without(v, missing, (*path, k)) for k, v in enumerate(found) if (*path, k) not in missing]
    return found


documents = st.sets(st.sampled_from(list(_paths(EVERYTHING))), max_size=6).map(partial(_without, EVERYTHING))


def test_the_example_has_every_attribute() -> None:
    """Whoever adds an attribute to the model gives it a value there, or nobody would see that the database drops it."""
    set_ones = set(_set_in(read_values(EVERYTHING, "t")))
    models = (Policy, Port, SecurityGroup, AddressGroup, Rule, Tier, Network)
    wanted = {(model, field.name) for model in models for field in fields(model) if field.init}
    # Only Neutron's agent can ask for source ports, see below.
    assert wanted - set_ones == {(Rule, "source_ports")}


def _set_in(value: Any) -> Iterator[tuple[type, str]]:
    """Every attribute in a policy that has another value than its default."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _set_in(each)
    elif isinstance(value, tuple):
        for each in value:
            yield from _set_in(each)
    elif is_dataclass(value):
        for field in fields(value):
            found = getattr(value, field.name)
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if field.init and found != default:
                yield type(value), field.name
                yield from _set_in(found)


def _good(document: dict[str, Any]) -> Policy | None:
    try:
        return judge_values(document, "t").policy
    except PolicyError:
        return None


def exported(document: dict[str, Any]) -> dict[str, Any]:
    """What comes out of the database when this has been put in."""
    judged = judge_values(document, "t")
    return document_of(rows_of(judged.policy, judged.written))


def test_every_attribute_comes_out_of_the_database() -> None:
    out = exported(EVERYTHING)
    assert read_values(out, "t") == read_values(EVERYTHING, "t")
    assert out["assertions"] == EVERYTHING["assertions"]


@some
@given(documents)
def test_any_document_comes_out_of_the_database(document: dict[str, Any]) -> None:
    """Compared with what was put in, and not with what was written of it."""
    policy = _good(document)
    assume(policy is not None)
    out = exported(document)
    assert read_values(out, "t") == policy
    assert exported(out) == out
