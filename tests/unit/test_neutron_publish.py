"""What Neutron's API says, as rows of the policy database; and what has to be written to make them so."""

from __future__ import annotations

from typing import Any

import pytest

from ovsfw.neutron.comparing import Change, change_of, told
from ovsfw.neutron.publish import ADDRESS_GROUP, GROUP, PORT, REVISION, Objects, Published, published
from ovsfw.policy.document import judge_values
from ovsfw.policy.model import Policy
from ovsfw.store.rows import RULES, Key, Rows, document_of
from tests.cloud import Cloud, rule


def policy_of(rows: Rows) -> Policy:
    return judge_values(document_of(rows), "rows").policy


def document(rows: Rows, table: str, name: str) -> str:
    return str(rows[Key(table, name)]["document"])


def cloud() -> Cloud:
    made = Cloud()
    made.group("web", rule("http", protocol="tcp", port_range_min=80, port_range_max=80, remote_group_id="lb"))
    made.group(
        "lb", rule("office", remote_address_group_id="office"), rule("all", direction="egress", ethertype="IPv6")
    )
    made.address_group("office", "192.0.2.0/24", "2001:db8::/32")
    made.port(1, "web")
    made.port(2, "lb", allowed_address_pairs=[{"ip_address": "10.9.0.0/24", "mac_address": "fa:16:3e:00:00:02"}])
    return made


def rows_of(made: Cloud) -> Rows:
    found = published(made.everything(), ())
    assert not found.problems
    return found.rows


def test_the_rows_are_a_policy() -> None:
    policy = policy_of(rows_of(cloud()))
    assert set(policy.ports) == {"vm1", "vm2"}
    assert [each.id for each in policy.security_groups["lb"].rules] == ["all", "office"]
    assert [str(prefix) for prefix in policy.address_groups["office"].prefixes] == ["192.0.2.0/24", "2001:db8::/32"]


def test_every_row_has_the_revision_of_its_object() -> None:
    made = cloud()
    made.port(1, "lb")
    rows = rows_of(made)
    assert rows[Key(PORT, "vm1")][REVISION] == 2
    assert rows[Key(PORT, "vm2")][REVISION] == 1
    assert rows[Key(RULES, "http")][REVISION] == 0


@pytest.mark.parametrize(
    ("more", "filtered"),
    [
        ({}, True),
        ({"port_security_enabled": None}, True),
        ({"port_security_enabled": False}, False),
        ({"device_owner": "network:dhcp"}, False),
        ({"device_owner": "network:router_interface", "port_security_enabled": True}, False),
        ({"device_owner": None}, True),
    ],
)
def test_whether_a_port_is_filtered(more: dict[str, Any], *, filtered: bool) -> None:
    made = Cloud()
    made.port(1, **more)
    port = policy_of(rows_of(made)).ports["vm1"]
    assert port.port_security is filtered
    assert port.fixed_ips
    assert port.mac


def test_a_stateless_group() -> None:
    made = Cloud()
    made.group("bare", stateful=False)
    assert not policy_of(rows_of(made)).security_groups["bare"].stateful


def test_what_is_named_is_asked_for() -> None:
    references = cloud().everything().references
    assert references == {Key(GROUP, "web"), Key(GROUP, "lb"), Key(ADDRESS_GROUP, "office")}


def test_what_refers_to_something_unknown_is_without_it() -> None:
    objects = cloud().everything()
    parted = Objects(groups={"web": objects.groups["web"]}, ports={"vm2": objects.ports["vm2"]})
    rows = published(parted, ()).rows
    assert Key(RULES, "http") not in rows
    assert rows[Key(PORT, "vm2")]["security_groups"] == ()
    known = published(parted, [Key(GROUP, "lb")]).rows
    assert Key(RULES, "http") in known
    assert known[Key(PORT, "vm2")]["security_groups"] == ("lb",)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"protocol": "tcp", "port_range_min": 0, "port_range_max": 99999}, "rule odd allows nothing, because 0-99999"),
        ({"ethertype": "IPX"}, "'IPX' is no ethertype"),
        ({"direction": None}, "allows nothing, because"),
    ],
)
def test_a_rule_that_nobody_understands_is_left_out_and_told(wrong: dict[str, Any], said: str) -> None:
    made = Cloud()
    made.group("web", rule("odd", **wrong), rule("good"))
    found = published(made.everything(), ())
    assert [key for key in found.rows if key.table == RULES] == [Key(RULES, "good")]
    assert said in found.problems[0]


def test_a_port_that_nobody_understands_is_left_out_and_told() -> None:
    made = Cloud()
    made.port(1, fixed_ips=[{"ip_address": "no address"}])
    made.port(2)
    found = published(made.everything(), ())
    assert list(found.rows) == [Key(PORT, "vm2")]
    assert "vm1" in found.problems[0]
    assert "passes nothing" in found.problems[0]


def test_an_address_that_is_none_is_left_out_of_its_group() -> None:
    made = Cloud()
    made.address_group("office", "192.0.2.0/24", "192.0.2.0/99")
    found = published(made.everything(), ())
    assert "192.0.2.0/24" in document(found.rows, ADDRESS_GROUP, "office")
    assert "192.0.2.0/99" in found.problems[0]


# --- Changes --------------------------------------------------------------------------------------------------------


def change(old: Rows, made: Cloud, *, whole: bool = True) -> Change:
    return change_of(old, published(made.everything(), ()), whole=whole)


def test_equal_rows_are_not_touched() -> None:
    made = cloud()
    assert not change(rows_of(made), made).difference


def test_another_revision_of_the_same_object_is_nothing_to_a_host() -> None:
    made = cloud()
    old = rows_of(made)
    made.port(1, "web")
    found = change(old, made)
    assert found.difference.update == {Key(PORT, "vm1"): {REVISION: 2}}
    assert not found.matters


def test_a_changed_rule_is_the_only_difference() -> None:
    made = cloud()
    old = rows_of(made)
    made.group("web", rule("https", protocol="tcp", port_range_min=443, port_range_max=443))
    found = change(old, made).difference
    assert found.delete == (Key(RULES, "http"),)
    assert set(found.insert) == {Key(RULES, "https")}
    assert found.update == {Key(GROUP, "web"): {REVISION: 2}}


def test_a_unit_that_is_newer_there_stays_with_its_rules() -> None:
    made = cloud()
    old = rows_of(made)
    old[Key(GROUP, "web")] = {**old[Key(GROUP, "web")], REVISION: 9}
    made.objects[Key(GROUP, "web")]["security_group_rules"] = [rule("older")]
    found = change(old, made)
    assert not found.difference
    assert found.stale == {Key(GROUP, "web")}


def test_a_port_that_is_gone_goes() -> None:
    made = cloud()
    old = rows_of(made)
    made.delete(Key(PORT, "vm1"))
    assert change(old, made, whole=False).difference.delete == (Key(PORT, "vm1"),)


def test_a_group_that_is_gone_is_emptied_and_goes_when_everything_has_been_seen() -> None:
    made = cloud()
    old = rows_of(made)
    made.delete(Key(GROUP, "lb"))
    parts = {key: columns for key, columns in old.items() if key.id in ("lb", "office", "all")}
    asked = change_of(parts, Published({}), whole=False)
    assert set(asked.difference.delete) == {Key(RULES, "office"), Key(RULES, "all")}
    assert asked.difference.update == {Key(ADDRESS_GROUP, "office"): {"document": '{"id": "office", "name": "office"}'}}
    made.port(2)
    assert Key(GROUP, "lb") in change(old, made).difference.delete


def by_hand(columns: dict[str, Any]) -> dict[str, Any]:
    return {**columns, REVISION: None}


def test_what_is_not_neutrons_stays() -> None:
    made = cloud()
    old = rows_of(made)
    other = Cloud()
    other.group("mine", rule("mine-1", remote_group_id="mine"))
    other.port(9, "mine")
    old |= {key: by_hand({**columns}) for key, columns in rows_of(other).items()}
    assert not change(old, made).difference


def test_a_rule_by_hand_in_a_group_of_neutron_does_not_stay() -> None:
    made = cloud()
    old = rows_of(made)
    other = Cloud()
    other.group("web", rule("by-hand"))
    old[Key(RULES, "by-hand")] = by_hand({**rows_of(other)[Key(RULES, "by-hand")]})
    assert change(old, made).difference.delete == (Key(RULES, "by-hand"),)


@pytest.mark.parametrize("whole", [True, False])
def test_a_group_stays_as_long_as_something_by_hand_refers_to_it(*, whole: bool) -> None:
    made = cloud()
    made.port(2)
    old = rows_of(made)
    tier = '{"id": "top", "rules": [{"action": "deny", "direction": "ingress", "remote_group_id": "lb"}]}'
    old[Key("Tier", "top")] = {"id": "top", "document": tier, "place": 0}
    made.delete(Key(GROUP, "lb"))
    found = change(old, made, whole=whole).difference
    assert Key(GROUP, "lb") not in found.delete
    assert Key(RULES, "all") in found.delete


def test_what_no_host_could_read_is_not_written() -> None:
    made = Cloud()
    made.group("web")
    made.port(1, "web", name="x" * 256)
    found = change({}, made)
    assert set(found.difference.insert) == {Key(GROUP, "web")}
    assert "256 characters" in found.problems[0]


def test_differences_are_told_in_lines() -> None:
    made = cloud()
    old = rows_of(made)
    made.port(1, "lb")
    made.port(2, "lb")
    made.port(3)
    made.group("web")
    assert [line.partition(":")[0] for line in told(change(old, made), old)] == [
        "+ port vm3",
        "- rule http of security group web",
        "~ port vm1",
        "~ port vm2",
    ]
