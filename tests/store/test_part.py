"""A host's part of a policy compiles to the same flows as the whole, however its rows came."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler import compile_policy
from ovsfw.errors import PolicyError
from ovsfw.policy.model import Policy
from ovsfw.store.part import Needs, Part, needed_rows
from ovsfw.store.rows import Columns, Key, rows_of
from tests.store.test_rows import read_back, some, whole_policies
from tests.strategies import bindings_for


class Server:
    """Sends a part what it asks for, in any order, and takes back what it no longer asks for."""

    def __init__(self, part: Part, shuffle: random.Random) -> None:
        self.part = part
        self.shuffle = shuffle
        self.sent: dict[Key, Columns] = {}

    def serve(self, rows: dict[Key, Columns]) -> None:
        needs: Needs | None = None
        while needs != self.part.needs():
            needs = self.part.needs()
            wanted = needed_rows(rows, needs)
            changed = [key for key in self.sent.keys() | wanted.keys() if self.sent.get(key) != wanted.get(key)]
            self.shuffle.shuffle(changed)
            for key in changed:
                if key in wanted:
                    self.part.put(key, wanted[key])
                else:
                    self.part.drop(key)
            self.sent = wanted


def part_of(policy: Policy, plugged: frozenset[str]) -> Policy:
    part = Part("t", plugged)
    Server(part, random.Random(0)).serve(rows_of(policy))  # noqa: S311 - no secret
    return part.policy()


@some
@given(st.data())
def test_the_part_compiles_like_the_whole(data: st.DataObject) -> None:
    policy = read_back(data.draw(whole_policies(max_ports=7)))
    bindings = data.draw(bindings_for(policy))
    plugged = frozenset(bound.port_id for bound in bindings.endpoints)
    part = part_of(policy, plugged)
    assert compile_policy(part, bindings) == compile_policy(policy, bindings)
    assert part.ports.keys() <= policy.ports.keys()


@some
@given(st.data())
def test_only_what_is_there_now_matters(data: st.DataObject) -> None:
    """Rows and plugs that come and go, in any order, end where a fresh start ends."""
    part = Part("t")
    server = Server(part, data.draw(st.randoms(use_true_random=False)))
    for _ in range(3):
        policy = read_back(data.draw(whole_policies(max_ports=4)))
        part.plugged = frozenset(data.draw(st.sets(st.sampled_from(sorted(policy.ports)))))
        server.serve(rows_of(policy))
        assert repr(part.policy()) == repr(part_of(policy, part.plugged))


def test_what_has_not_changed_is_the_same_object() -> None:
    port = '{"id": "%s", "mac_address": "02:00:00:00:00:01", "security_groups": ["web"]}'
    part = Part("t", frozenset({"a", "b"}))
    for name in ("a", "b"):
        part.put(Key("Port", name), {"document": port % name, "security_groups": ("web",)})
    part.put(Key("Security_Group", "web"), {"document": '{"id": "web"}'})
    before = part.policy()
    part.put(Key("Port", "b"), {"document": port.replace(":01", ":02") % "b", "security_groups": ("web",)})
    after = part.policy()
    assert after.ports["b"] != before.ports["b"]
    assert after.ports["a"] is before.ports["a"]
    assert after.security_groups["web"] is before.security_groups["web"]


GOOD_PORT = '{"id": "a", "mac_address": "02:00:00:00:00:01", "security_groups": ["web", "loose"]}'


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({Key("Port", "a"): "no JSON"}, "db: Port a: Expecting value"),
        ({Key("Port", "a"): '{"mac_address": 1}'}, r"db: ports\[a\].mac_address: 1 is not a MAC address"),
        ({Key("Port", "a"): GOOD_PORT}, "db: security group loose is referred to, and is not there"),
        (
            {
                Key("Port", "a"): GOOD_PORT,
                Key("Security_Group", "web"): "{}",
                Key("Security_Group", "loose"): '{"stateful": false}',
            },
            "db: port a has stateful and stateless security groups",
        ),
        ({Key("Rule", "r"): '{"direction": "up"}'}, r"db: security_groups\[web\].rules\[r\].direction"),
    ],
)
def test_rows_of_other_programs_that_are_no_policy(rows: dict[Key, str], complaint: str) -> None:
    part = Part("db", frozenset({"a"}))
    for key, document in rows.items():
        part.put(key, {"document": document, "security_groups": ("web", "loose"), "security_group": "web"})
    with pytest.raises(PolicyError, match=complaint):
        part.policy()
    for key in rows:
        part.drop(key)
    assert part.policy() == Policy()
