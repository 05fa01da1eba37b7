"""The index of members: what it says depends on the policy alone, and is what the policy says."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler.groups import RULE_TABLE, clause, remote_field
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.packets import IP_OF, prefix_terms
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.compiler.remotes import Bucket, Members, Page, Sets, View, member_flows
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.text import format_flow
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Direction, Policy, Port, RemoteAddressGroup, RemoteGroup
from ovsfw.policy.paged import Paged
from tests import strategies


def said(members: Members, policy: Policy) -> dict[Prefix, set[str]]:
    """Each address with the sets it is in."""
    return {
        prefix: {name for names in owners for name in names}
        for pages in members.follow(policy).values()
        for page in pages
        for bucket in page
        for prefix, owners in bucket.items()
    }


def meant(policy: Policy) -> dict[Prefix, set[str]]:
    """The same by the naive way."""
    found: dict[Prefix, set[str]] = {}
    groups: list[RemoteGroup | RemoteAddressGroup] = [*map(RemoteGroup, policy.security_groups)]
    for remote in (*groups, *map(RemoteAddressGroup, policy.address_groups)):
        for prefix in policy.members(remote):
            found.setdefault(prefix, set()).add(remote_name(remote))
    return found


@given(st.lists(strategies.policies(), min_size=1, max_size=4))
def test_it_says_what_the_last_policy_says(history: list[Policy]) -> None:
    members = Members()
    for policy in history:
        assert said(members, policy) == meant(policy)
        assert members.follow(policy) == Members().follow(policy)


@given(st.lists(strategies.policies(), min_size=2, max_size=4))
def test_it_follows_ports_in_pages_as_any_others(history: list[Policy]) -> None:
    members, ports = Members(), Paged[str, Port]()
    for policy in history:
        ports = ports.changed({**dict.fromkeys(ports), **policy.ports})
        assert members.follow(dataclasses.replace(policy, ports=ports)) == Members().follow(policy)


def test_what_has_not_changed_is_the_same_object() -> None:
    ports = {f"port-{number}": _port(number) for number in range(300)}
    members = Members()
    before = members.follow(Policy(ports))[Family.IPV4]
    another = Policy({**ports, "one": dataclasses.replace(_port(777), id="one")})
    after = members.follow(another)[Family.IPV4]
    pages = [(one, other) for one, other in zip(before, after, strict=True) if one is not other]
    assert len(pages) == 1
    assert [one is other for one, other in zip(*pages[0], strict=True)].count(False) == 1
    # Equal ports of another document are no change.
    equal = Policy({**ports, "one": dataclasses.replace(_port(777), id="one")})
    assert all(map(_is, after, members.follow(equal)[Family.IPV4]))


def _is(one: object, other: object) -> bool:
    return one is other


def _port(number: int) -> Port:
    return Port(f"port-{number}", number, (Prefix(Family.IPV4, 0x0A000000 | number, 32),), security_groups=("a",))


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("length", [0, 1, 9, 24, 31, 32, 33, 64, 127, 128])
def test_the_short_way_makes_the_same_flow(direction: Direction, family: Family, length: int) -> None:
    if length > family.bits:
        return
    value = (0xC0A80A01 if family is Family.IPV4 else 0x20010DB8 << 96 | 0xFF) >> (family.bits - length)
    prefix = Prefix(family, value << (family.bits - length), length)
    owners = (("group:b", "group:a"), ("group:a",))
    sets = Sets({"group:a": 9, "group:b": 4})
    [flow] = map(Flow._make, member_flows((direction, family), {prefix: owners}, sets))
    match = (IP_OF[family], *prefix_terms(remote_field(direction, family), prefix))
    table = RULE_TABLE[direction, family]
    assert flow == clause(table, match, sets.of(owners), 1, cookie(Reason.MEMBER)), format_flow(flow)
    assert not list(member_flows((direction, family), {prefix: owners}, Sets({"group:c": 1})))


def test_a_page_depends_on_the_numbers_of_its_own_sets() -> None:
    page = Page((Bucket({Prefix.parse("10.0.0.1"): (("group:a",),)}),))
    one = View(page, Sets({"group:a": 1, "group:b": 2}))
    assert one == View(page, Sets({"group:a": 1, "group:c": 2}))
    assert one != View(page, Sets({"group:a": 3, "group:b": 2}))
    assert one != View(page, Sets({}))
    assert one != View(Page(page), one.sets)
