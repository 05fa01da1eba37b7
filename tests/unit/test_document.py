from __future__ import annotations

from pathlib import Path

import pytest

from ovsfw.errors import PolicyError
from ovsfw.policy.addresses import Family, Prefix, parse_mac
from ovsfw.policy.document import parse, warnings
from ovsfw.policy.model import (
    AddressGroup,
    Claim,
    Direction,
    Policy,
    Port,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
    SecurityGroup,
)

DOCUMENTS = Path(__file__).parent / "documents"
UNMATCHABLE = "Open vSwitch cannot match the ports of {}; leave the ports out"
MAC = parse_mac("52:54:00:00:00:01")


def rules_of(text: str) -> tuple[Rule, ...]:
    """The rules of a group `web`, written as YAML flow mappings, one a line."""
    lines = "".join(f"      - {line.strip()}\n" for line in text.strip().splitlines())
    policy = parse(f"security_groups:\n  - id: web\n    rules:\n{lines}address_groups:\n  - id: office\n", "test")
    return policy.security_groups["web"].rules


def rule(text: str) -> Rule:
    (only,) = rules_of(text)
    return only


def test_every_part_of_a_document_has_its_place_in_the_policy() -> None:
    policy = parse(
        """
        security_groups:
          - id: web
            name: The Web
            rules:
              - {direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 90, remote_group_id: bastion}
          - {id: bastion, stateful: false}
        address_groups:
          - {id: office, name: Office, addresses: [198.51.100.7/24, "2001:db8::1"]}
        ports:
          - id: vm1
            name: first
            mac_address: 52:54:00:00:00:01
            network_id: blue
            fixed_ips: [{ip_address: 10.9.0.2, subnet_id: s}, {ip_address: 10.9.0.1}]
            allowed_address_pairs: [{ip_address: 10.9.1.0/24, mac_address: 52-54-00-00-00-02}, {ip_address: "::1"}]
            security_groups: [web]
          - {id: vm2, mac_address: 5254.0000.0003, port_security_enabled: false}
        """,
        "test",
    )
    expected_rule = Rule(
        "web/ingress-ipv4-tcp-80-90-from-bastion",
        Direction.INGRESS,
        Family.IPV4,
        6,
        PortRange(80, 90),
        remote=RemoteGroup("bastion"),
    )
    assert policy == Policy(
        ports={
            "vm1": Port(
                "vm1",
                MAC,
                (Prefix.parse("10.9.0.1"), Prefix.parse("10.9.0.2")),
                (Claim(MAC, Prefix.parse("::1")), Claim(MAC + 1, Prefix.parse("10.9.1.0/24"))),
                ("web",),
                network_id="blue",
                name="first",
            ),
            "vm2": Port("vm2", MAC + 2, port_security=False),
        },
        security_groups={
            "web": SecurityGroup("web", "The Web", rules=(expected_rule,)),
            "bastion": SecurityGroup("bastion", stateful=False),
        },
        address_groups={
            "office": AddressGroup("office", "Office", (Prefix.parse("198.51.100.0/24"), Prefix.parse("2001:db8::1")))
        },
    )


def test_what_openstack_prints_can_be_used_as_it_is() -> None:
    policy = parse((DOCUMENTS / "good/openstack.json").read_bytes(), "openstack.json")
    group = policy.security_groups["85cc3048-abc3-43cc-89b3-377341426ac5"]
    office = RemoteAddressGroup("8722e0e0-9cc9-4490-9660-8c9a5732fbb0")
    assert group.rules == (
        Rule("3c0e45ff-adaf-4124-b083-bf390e5482ff", Direction.EGRESS, Family.IPV6),
        Rule(
            "c0b09f00-1d49-4e64-a0a7-8a186d928138",
            Direction.INGRESS,
            Family.IPV4,
            6,
            PortRange(22, 22),
            remote=Prefix.parse("198.51.100.0/24"),
        ),
        Rule("f7d45c89-008e-4bab-88ad-d6811724c51c", Direction.INGRESS, Family.IPV6, 58, remote=office),
    )
    assert [port.security_groups for port in policy.ports.values()] == [(group.id,), (group.id,)]
    assert policy.ports["vm2"].network_id is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{direction: ingress}", Rule("web/ingress-ipv4-any", Direction.INGRESS, Family.IPV4)),
        ("{direction: egress, ethertype: ipv6}", Rule("web/egress-ipv6-any", Direction.EGRESS, Family.IPV6)),
        ("{id: r1, direction: ingress, protocol: any}", Rule("r1", Direction.INGRESS, Family.IPV4)),
        (
            "{direction: ingress, remote_ip_prefix: 0.0.0.0/0}",
            Rule("web/ingress-ipv4-any", Direction.INGRESS, Family.IPV4),
        ),
        (
            '{direction: ingress, ethertype: IPv6, remote_ip_prefix: "::/0", protocol: "6"}',
            Rule("web/ingress-ipv6-tcp", Direction.INGRESS, Family.IPV6, 6),
        ),
        (
            "{direction: egress, remote_ip_prefix: 10.1.2.3}",
            Rule("web/egress-ipv4-any-to-10.1.2.3/32", Direction.EGRESS, Family.IPV4, remote=Prefix.parse("10.1.2.3")),
        ),
        (
            "{direction: ingress, remote_address_group_id: office}",
            Rule(
                "web/ingress-ipv4-any-from-addresses:office",
                Direction.INGRESS,
                Family.IPV4,
                remote=RemoteAddressGroup("office"),
            ),
        ),
        (
            '{direction: ingress, protocol: UDP, port_range_min: "53", port_range_max: 053}',
            Rule("web/ingress-ipv4-udp-53", Direction.INGRESS, Family.IPV4, 17, PortRange(53, 53)),
        ),
        (
            "{direction: ingress, protocol: tcp, port_range_min: 1, port_range_max: 65535}",
            Rule("web/ingress-ipv4-tcp", Direction.INGRESS, Family.IPV4, 6),
        ),
        (
            "{direction: ingress, protocol: tcp, port_range_min: 0, port_range_max: 65535}",
            Rule("web/ingress-ipv4-tcp", Direction.INGRESS, Family.IPV4, 6),
        ),
        (
            "{direction: ingress, protocol: icmp, port_range_min: 8, port_range_max: 0}",
            Rule("web/ingress-ipv4-icmp-8-0", Direction.INGRESS, Family.IPV4, 1, icmp_type=8, icmp_code=0),
        ),
        (
            "{direction: ingress, protocol: icmp, port_range_min: 0}",
            Rule("web/ingress-ipv4-icmp-0", Direction.INGRESS, Family.IPV4, 1, icmp_type=0),
        ),
        (
            "{direction: ingress, ethertype: IPv6, protocol: icmp, port_range_min: 128}",
            Rule("web/ingress-ipv6-ipv6-icmp-128", Direction.INGRESS, Family.IPV6, 58, icmp_type=128),
        ),
        (
            "{direction: ingress, ethertype: IPv6, protocol: 1}",
            Rule("web/ingress-ipv6-ipv6-icmp", Direction.INGRESS, Family.IPV6, 58),
        ),
        (
            "{direction: ingress, ethertype: IPv6, protocol: icmpv6}",
            Rule("web/ingress-ipv6-ipv6-icmp", Direction.INGRESS, Family.IPV6, 58),
        ),
        ("{direction: ingress, protocol: 253}", Rule("web/ingress-ipv4-253", Direction.INGRESS, Family.IPV4, 253)),
    ],
)
def test_a_rule(text: str, expected: Rule) -> None:
    assert rule(text) == expected


def test_equal_rules_without_ids_are_one() -> None:
    both = rules_of("{direction: ingress, protocol: tcp}\n{direction: ingress, protocol: 6, ethertype: IPv4}")
    assert [each.id for each in both] == ["web/ingress-ipv4-tcp"]


def test_equal_rules_with_ids_stay_apart() -> None:
    assert [each.id for each in rules_of("{id: b, direction: ingress}\n{id: a, direction: ingress}")] == ["a", "b"]


def test_ids_of_rules_do_not_meet_whatever_the_groups_are_called() -> None:
    names = ["10.0.0.0/8", "10.0.0.1", "addresses:office", "addresses%3Aoffice", "a/ingress-ipv4-any", "a b", "office"]
    groups = "".join(
        f"  - id: {name}\n    rules:\n" + "".join(f"      - {{direction: ingress, {remote}}}\n" for remote in remotes)
        for name in names
        for remotes in [
            [f'remote_group_id: "{other}"' for other in names]
            + ["remote_ip_prefix: 10.0.0.0/8", "remote_ip_prefix: 10.0.0.1", "remote_address_group_id: office"]
        ]
    )
    policy = parse(f"address_groups: [{{id: office}}]\nsecurity_groups:\n{groups}", "test")
    ids = [rule.id for group in policy.security_groups.values() for rule in group.rules]
    assert len(set(ids)) == len(ids) == len(names) * (len(names) + 3)


def test_a_group_may_go_by_its_name_alone() -> None:
    policy = parse(
        """
        security_groups:
          - name: web
            rules: [{direction: ingress, remote_group_id: The Office}]
          - {id: "1", name: The Office}
        ports: [{id: vm1, mac_address: 52:54:00:00:00:01, security_groups: [The Office, web, "1"]}]
        """,
        "test",
    )
    assert list(policy.security_groups) == ["1", "web"]
    assert policy.security_groups["web"].rules[0].remote == RemoteGroup("1")
    assert policy.ports["vm1"].security_groups == ("1", "web")


def test_an_id_outranks_a_name() -> None:
    groups = "[{id: a, name: b}, {id: b, name: a}]"
    policy = parse(
        f"security_groups: {groups}\nports: [{{id: p, mac_address: 52:54:00:00:00:01, security_groups: [a]}}]", "test"
    )
    assert policy.ports["p"].security_groups == ("a",)


def test_one_address_in_two_networks_is_two_addresses() -> None:
    port = "{{id: {0}, network_id: {0}, mac_address: 52:54:00:00:00:01, fixed_ips: [{{ip_address: 10.0.0.1}}]}}"
    policy = parse(
        f"ports: [{port.format('a')}, {port.format('b')}, {port.format('null')}]".replace("id: null", "id: c"), "t"
    )
    assert [port.network_id for port in policy.ports.values()] == ["a", "b", "c"]


def test_null_is_absent() -> None:
    text = (
        "security_groups: null\naddress_groups:\nports: [{id: a, mac_address: 52:54:00:00:00:01, fixed_ips: ~, name: }]"
    )
    assert parse(text, "test") == Policy(ports={"a": Port("a", MAC)})


def test_a_group_that_is_wrong_is_still_known() -> None:
    port = "{id: p, mac_address: 52:54:00:00:00:01, security_groups: [a]}"
    text = f"security_groups: [{{id: a, stateful: 1}}]\nports: [{port}]"
    with pytest.raises(PolicyError) as caught:
        parse(text, "t")
    assert str(caught.value) == "t:1:37: security_groups[0].stateful: 1 is not true or false"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{direction: ingress, protocol: dccp}", []),
        ("{direction: ingress, protocol: tcp, port_range_min: 1, port_range_max: 2}", []),
        (
            "{direction: ingress, protocol: udplite, port_range_min: 7, port_range_max: 7}",
            ["rule web/ingress-ipv4-udplite-7 allows nothing: " + UNMATCHABLE.format("udplite")],
        ),
        (
            "{id: r, direction: ingress, protocol: ip}",
            ["rule r is for IP protocol 0 (hop-by-hop options); leave protocol out to mean any protocol"],
        ),
        *(
            (
                f"{{id: r, direction: ingress, ethertype: IPv6, protocol: {number}}}",
                [f"rule r allows nothing: {name} is an IPv6 extension header; name the protocol behind it"],
            )
            for number, name in ((43, "ipv6-route"), (44, "ipv6-frag"), (51, "ah"), (60, "ipv6-opts"))
        ),
    ],
)
def test_warnings_about_rules(text: str, expected: list[str]) -> None:
    assert warnings(parse(f"security_groups: [{{id: web, rules: [{text}]}}]", "test")) == expected


def test_warnings_about_ports() -> None:
    pairs = '[{ip_address: 0.0.0.0/0}, {ip_address: "::/0"}, {ip_address: 10.0.0.0/8}]'
    policy = parse(f"ports: [{{id: a, mac_address: 52:54:00:00:00:01, allowed_address_pairs: {pairs}}}]", "test")
    assert warnings(policy) == [
        "port a may send from any IPv4 address: the allowed address pair 0.0.0.0/0 turns its spoof guard off",
        "port a may send from any IPv6 address: the allowed address pair ::/0 turns its spoof guard off",
    ]
