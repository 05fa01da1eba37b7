from __future__ import annotations

from typing import Any

import pytest

from ovsfw.neutron.translate import assemble, read_group, read_members, read_port, read_rule, trusted_port
from ovsfw.policy.addresses import Family, Prefix, parse_mac
from ovsfw.policy.model import Claim, Direction, Policy, PortRange, RemoteAddressGroup, RemoteGroup, Rule
from ovsfw.policy.verdict import TCP, Connection, verdict

MAC = "fa:16:3e:00:00:01"
IN, OUT = Direction.INGRESS, Direction.EGRESS
V4, V6 = Family.IPV4, Family.IPV6


def port_data(**more: Any) -> dict[str, Any]:
    """As the agent has it."""
    return {
        "device": "7f3c",
        "id": "7f3c",
        "mac_address": MAC,
        "fixed_ips": ["10.0.0.1", "2001:db8::1"],
        "security_groups": ["web"],
        "security_group_rules": [{"direction": "ingress", "ethertype": "IPv4", "protocol": "udp"}],
        "security_group_source_groups": [],
        "port_security_enabled": True,
        "network_id": "net",
        "status": "DOWN",
        **more,
    }


def rule_data(direction: str = "ingress", ethertype: str = "IPv4", **more: Any) -> dict[str, Any]:
    return {"direction": direction, "ethertype": ethertype, **more}


# --- Ports ----------------------------------------------------------------------------------------------------------


def test_a_port() -> None:
    port = read_port(port_data())
    assert (port.id, port.mac, port.network_id) == ("7f3c", parse_mac(MAC), "net")
    assert port.fixed_ips == (Prefix.parse("10.0.0.1"), Prefix.parse("2001:db8::1"))
    assert port.security_groups == ("web",)
    assert port.port_security


def test_addresses_may_come_as_the_api_has_them() -> None:
    assert read_port(port_data(fixed_ips=[{"ip_address": "10.0.0.9", "subnet_id": "x"}])).fixed_ips == (
        Prefix.parse("10.0.0.9"),
    )


def test_address_pairs() -> None:
    pairs = [{"ip_address": "10.0.0.128/25", "mac_address": "00:00:5e:00:01:01"}, {"ip_address": "10.0.0.7"}]
    assert set(read_port(port_data(allowed_address_pairs=pairs)).pairs) == {
        Claim(0x00005E000101, Prefix.parse("10.0.0.128/25")),
        Claim(parse_mac(MAC), Prefix.parse("10.0.0.7")),
    }


def test_a_port_without_port_security_is_not_filtered() -> None:
    assert read_port(port_data(port_security_enabled=False)) == trusted_port("7f3c")
    assert not trusted_port("7f3c").port_security


def test_port_security_is_on_where_nobody_says() -> None:
    data = port_data()
    del data["port_security_enabled"]
    assert read_port(data).port_security


@pytest.mark.parametrize(
    "wrong",
    [
        {"mac_address": None},
        {"mac_address": "01:00:5e:00:00:01"},
        {"fixed_ips": ["10.0.0.0/24"]},
        {"fixed_ips": ["nonsense"]},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.7", "mac_address": "1"}]},
    ],
)
def test_a_port_that_cannot_be_understood_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"port 7f3c: .*passes nothing"):
        read_port(port_data(**wrong))


# --- Rules ----------------------------------------------------------------------------------------------------------

READ = [
    (rule_data(), Rule("", IN, V4)),
    (rule_data("egress", "IPv6"), Rule("", OUT, V6)),
    (rule_data(protocol="tcp", port_range_min=80, port_range_max=90), Rule("", IN, V4, 6, PortRange(80, 90))),
    (rule_data(protocol="6", port_range_min=80), Rule("", IN, V4, 6, PortRange(80, 80))),
    (rule_data(protocol=17, port_range_max=53), Rule("", IN, V4, 17, PortRange(53, 53))),
    (rule_data(protocol="tcp", port_range_min=1, port_range_max=65535), Rule("", IN, V4, 6)),
    (
        rule_data(protocol="tcp", source_port_range_min=42, source_port_range_max=43),
        Rule("", IN, V4, 6, source_ports=PortRange(42, 43)),
    ),
    (rule_data(protocol="icmp", port_range_min=8, port_range_max=0), Rule("", IN, V4, 1, None, 8, 0)),
    (rule_data(ethertype="IPv6", protocol="icmp"), Rule("", IN, V6, 58)),
    (rule_data(ethertype="IPv6", protocol="ipv6-icmp", port_range_min=128), Rule("", IN, V6, 58, None, 128)),
    (rule_data(protocol="sctp"), Rule("", IN, V4, 132)),
    (rule_data(protocol="112"), Rule("", IN, V4, 112)),
    (rule_data(source_ip_prefix="10.0.0.9/24"), Rule("", IN, V4, remote=Prefix.parse("10.0.0.0/24"))),
    (rule_data(source_ip_prefix="0.0.0.0/0"), Rule("", IN, V4)),
    (rule_data("egress", dest_ip_prefix="10.1.2.3"), Rule("", OUT, V4, remote=Prefix.parse("10.1.2.3"))),
    (
        rule_data("egress", "IPv6", destination_ip_prefix="2001:db8::1"),
        Rule("", OUT, V6, remote=Prefix.parse("2001:db8::1")),
    ),
    (rule_data(remote_group_id="other"), Rule("", IN, V4, remote=RemoteGroup("other"))),
    (rule_data(remote_address_group_id="office"), Rule("", IN, V4, remote=RemoteAddressGroup("office"))),
    (rule_data(security_group_id="web", stateful=True, anything="else", port_range_min=None), Rule("", IN, V4)),
]


@pytest.mark.parametrize(("data", "expected"), READ, ids=[str(number) for number in range(len(READ))])
def test_a_rule(data: dict[str, Any], expected: Rule) -> None:
    assert read_rule(data) == expected


WRONG = [
    rule_data("sideways"),
    rule_data(ethertype="IPX"),
    {"ethertype": "IPv4"},
    rule_data(protocol="tpc"),
    rule_data(protocol="ipv6-icmp"),
    rule_data(protocol="tcp", port_range_min=90, port_range_max=80),
    rule_data(protocol="tcp", port_range_min=80, port_range_max=65536),
    rule_data(protocol="vrrp", port_range_min=80, port_range_max=80),
    rule_data(port_range_min=80, port_range_max=80),
    rule_data(protocol="icmp", port_range_max=0),
    rule_data(protocol="icmp", port_range_min=256),
    rule_data(protocol="icmp", source_port_range_min=134),
    rule_data(source_ip_prefix="2001:db8::/64"),
    rule_data(source_ip_prefix="nonsense"),
    rule_data(dest_ip_prefix="10.0.0.1"),
    rule_data("egress", source_ip_prefix="10.0.0.1"),
    rule_data(source_ip_prefix="10.0.0.1", remote_group_id="other"),
    rule_data(remote_address_group_id="office", remote_group_id="other"),
]


@pytest.mark.parametrize("data", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_a_rule_that_cannot_be_understood_allows_nothing_and_is_told(data: dict[str, Any]) -> None:
    group = read_group("web", [data, rule_data(protocol="tcp")])
    assert [rule.protocol for rule in group.group.rules] == [6]
    (problem,) = group.problems
    assert problem.startswith("security group web: a rule (")
    assert "allows nothing, because" in problem


def test_a_group() -> None:
    web = read_group("web", [rule_data(remote_group_id="other", stateful=True), rule_data(stateful=True)])
    assert web.group.stateful
    assert web.remote_groups == {"other"}
    assert {rule.remote for rule in web.group.rules} == {RemoteAddressGroup("other"), None}
    assert len({rule.id for rule in web.group.rules}) == 2


def test_equal_rules_are_one_and_their_order_does_not_show() -> None:
    rules = [rule_data(protocol="tcp"), rule_data(protocol="udp"), rule_data(protocol="6")]
    assert read_group("web", rules) == read_group("web", rules[::-1])
    assert len(read_group("web", rules).group.rules) == 2


def test_a_stateless_group() -> None:
    assert not read_group("web", [rule_data(stateful=False)]).group.stateful


def test_no_rules_may_come_as_an_empty_mapping() -> None:
    assert read_group("web", {}) == read_group("web", [])


def test_members() -> None:
    members: dict[str, Any] = {"IPv4": [("10.0.0.2", MAC), ["10.0.0.1", MAC]], "IPv6": [("2001:db8::/64", None)]}
    assert read_members(members) == tuple(map(Prefix.parse, ("10.0.0.1", "10.0.0.2", "2001:db8::/64")))


# --- What it means --------------------------------------------------------------------------------------------------


def policy_of(*rules: dict[str, Any], **members: list[str]) -> Policy:
    """One port with one group; the members of others."""
    port = read_port(port_data())
    sets = {name: read_members({"IPv4": [(text, MAC) for text in texts]}) for name, texts in members.items()}
    return assemble({port.id: port}, {"web": read_group("web", rules)}, sets)


def may_reach(policy: Policy, source: str, port: int = 80) -> bool:
    return verdict(
        policy, Connection(None, "7f3c", Prefix.parse(source), Prefix.parse("10.0.0.1"), TCP, 40000, port)
    ).ingress.allowed


def test_a_remote_group_is_its_members_and_nobody_else() -> None:
    policy = policy_of(rule_data(remote_group_id="app"), app=["10.0.0.2", "10.0.0.3"])
    assert may_reach(policy, "10.0.0.2")
    assert may_reach(policy, "10.0.0.3")
    assert not may_reach(policy, "10.0.0.4")


def test_a_remote_group_whose_members_are_not_known_is_nobody() -> None:
    assert not may_reach(policy_of(rule_data(remote_group_id="app")), "10.0.0.2")


def test_the_whole_world_as_address_pair_makes_no_member_but_in_an_address_group_it_counts() -> None:
    assert not may_reach(policy_of(rule_data(remote_group_id="app"), app=["0.0.0.0/0"]), "10.0.0.2")
    assert may_reach(policy_of(rule_data(remote_address_group_id="all"), all=["0.0.0.0/0"]), "10.0.0.2")


def test_a_prefix_is_no_wider_than_asked() -> None:
    policy = policy_of(rule_data(source_ip_prefix="10.0.0.0/25"))
    assert may_reach(policy, "10.0.0.127")
    assert not may_reach(policy, "10.0.0.128")


def test_only_groups_with_rules_and_sets_that_are_used_are_in_the_policy() -> None:
    port = read_port(port_data(security_groups=["empty", "web", "unknown"]))
    groups = {"web": read_group("web", [rule_data(stateful=False)]), "empty": read_group("empty", [])}
    groups["idle"] = read_group("idle", [rule_data()])
    policy = assemble({port.id: port}, groups, {"stale": read_members({})})
    assert set(policy.security_groups) == {"web"}
    assert policy.address_groups == {}
    assert policy.is_stateless(policy.ports["7f3c"])
