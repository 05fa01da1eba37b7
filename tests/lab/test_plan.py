"""What a lab looks like, and what is expected of its probes."""

from __future__ import annotations

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab.admissions import Hints, Notes, Tuple, admitted, original_tuple, parse_admissions
from ovsfw.lab.plan import Party, make_plan
from ovsfw.lab.services import Probe, Service, expect, services
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.document import parse
from ovsfw.policy.verdict import TCP, UDP, Connection


def ports(*lines: str) -> str:
    return "ports:\n" + "".join(f"  - {{mac_address: '52:54:00:00:00:{n:02x}', {x}}}\n" for n, x in enumerate(lines, 1))


def test_names_fit_devices_and_are_unique() -> None:
    uuid = "5f1a2c3e-0000-4000-8000-000000000001"
    policy = parse(ports(f"id: {uuid}, name: web", "id: switch", "id: outside", "id: 'a b', name: x", "id: x"), "")
    labels = {machine.port_id: machine.name for machine in make_plan(policy).machines}
    assert labels[uuid] == "web"
    assert labels[None] == "outside"
    assert len(set(labels.values())) == 6
    assert not {"switch", "a b"} & set(labels.values())


def test_ports_of_a_network_reach_each_other_without_a_router() -> None:
    policy = parse(
        ports("id: a, fixed_ips: [{ip_address: 10.1.0.1}]", "id: b, fixed_ips: [{ip_address: 10.2.0.254}]"), ""
    )
    a, b, outside = make_plan(policy).machines
    assert (a.addresses, a.routes, a.gateways) == (("10.1.0.1/24",), ("10.2.0.0/24",), ("10.1.0.254",))
    assert (b.addresses, b.routes, b.gateways) == (("10.2.0.254/24",), ("10.1.0.0/24",), ("10.1.0.254",))
    assert (outside.addresses, outside.routes) == (("10.1.0.254/24",), ("10.2.0.0/24",))


def test_a_full_subnet_is_refused() -> None:
    addresses = ", ".join(f"{{ip_address: 10.1.0.{number}}}" for number in range(1, 255))
    with pytest.raises(ConfigError, match=r"10\.1\.0\.0/24.*one free address"):
        make_plan(parse(ports(f"id: a, fixed_ips: [{addresses}]"), ""))


def test_the_outside_has_an_address_for_every_remote_that_is_not_inside() -> None:
    rules = [
        "remote_ip_prefix: 192.0.2.0/24",
        "remote_ip_prefix: 10.1.0.0/24",  # the gateway is in it
        "remote_ip_prefix: 0.0.0.0/0",
        "remote_ip_prefix: 224.0.0.0/4",
        "remote_address_group_id: office",
    ]
    text = ports("id: a, fixed_ips: [{ip_address: 10.1.0.1}]")
    text += "address_groups: [{id: office, addresses: [198.51.100.7, 198.51.100.8, '2001:db8::/32']}]\n"
    text += "security_groups:\n  - id: g\n    rules:\n"
    text += "".join(f"      - {{direction: ingress, {rule}}}\n" for rule in rules)
    parties = {party.name: party.addresses for party in make_plan(parse(text, "")).parties}
    assert parties == {
        "a": ("10.1.0.1",),
        "outside": ("10.1.0.254",),
        "192.0.2.0/24": ("192.0.2.1",),
        "office": ("198.51.100.7",),
    }


def group(*rules: str, stateful: str = "true") -> str:
    lines = "".join(f"      - {{{rule}}}\n" for rule in rules)
    return f"security_groups:\n  - id: g\n    stateful: {stateful}\n    rules:\n{lines}"


def test_services_are_the_ends_of_ranges_and_one_port_that_no_rule_names() -> None:
    policy = parse(
        group(
            "direction: ingress, protocol: tcp, port_range_min: 4000, port_range_max: 5000",
            "direction: egress, protocol: udp, port_range_min: 53, port_range_max: 53",
            "direction: ingress, protocol: tcp",
            "direction: ingress, protocol: sctp, port_range_min: 7, port_range_max: 7",
            "direction: ingress",
        ),
        "",
    )
    assert [str(service) for service in services(policy)] == ["icmp", "tcp/4000", "tcp/5000", "tcp/5001", "udp/53"]


def test_without_conntrack_an_answer_needs_a_rule_too() -> None:
    ends = ports(
        "id: a, port_security_enabled: false, fixed_ips: [{ip_address: 10.1.0.1}]",
        "id: b, security_groups: [g], fixed_ips: [{ip_address: 10.1.0.2}]",
    )
    way_in = "direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53"
    query = Connection("a", "b", Prefix.parse("10.1.0.1"), Prefix.parse("10.1.0.2"), UDP, 20000, 53)

    def said(text: str) -> tuple[bool, bool]:
        found = expect(parse(text, ""), query)
        return found.arrives, found.answered

    assert said(ends + group(way_in)) == (True, True)
    assert said(ends + group(way_in, stateful="false")) == (True, False)
    assert said(ends + group(way_in, "direction: egress", stateful="false")) == (True, True)
    assert said(ends + group("direction: egress", stateful="false")) == (False, False)


def test_conntrack_dump() -> None:
    dump = """
tcp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=20000,dport=80),reply=(src=10.9.0.2,dst=10.9.0.1,sport=80,dport=20000),\
zone=4096,mark=6,labels=0x8000000b8000000a,protoinfo=(state=TIME_WAIT)
udp,orig=(src=2001:db8::1,dst=2001:db8::2,sport=7,dport=53),reply=(src=2001:db8::2,dst=2001:db8::1,sport=53,dport=7)
icmp,orig=(src=10.9.0.1,dst=10.9.0.2,id=9,type=8,code=0),reply=(src=10.9.0.2,dst=10.9.0.1,id=9,type=0,code=0),zone=1
sctp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=1,dport=2),reply=(src=10.9.0.2,dst=10.9.0.1,sport=2,dport=1),zone=1
"""
    one, two = Prefix.parse("10.9.0.1").value, Prefix.parse("10.9.0.2").value
    one6, two6 = Prefix.parse("2001:db8::1").value, Prefix.parse("2001:db8::2").value
    assert parse_admissions(dump) == {
        Tuple(4096, TCP, one, two, 20000, 80): Hints(egress=0x8000000A, ingress=0x8000000B),
        Tuple(0, UDP, one6, two6, 7, 53): Hints(0, 0),
        Tuple(1, 1, one, two, 9, 0): Hints(0, 0),
    }


def test_each_host_knows_the_rules_of_its_own_end() -> None:
    ends = [Prefix.parse("10.1.0.1"), Prefix.parse("10.1.0.2")]
    a, b = (Party(name, name, 0, name, (str(end),)) for name, end in zip("ab", ends, strict=True))
    probe = Probe(a, b, Service(TCP, 80), *ends)

    def noted(machine: str, *hints: Hints) -> Notes:
        return Notes(frozenset({machine}), {original_tuple(probe, 20000): each for each in hints})

    here, there = noted("a", Hints(7, 0)), noted("b", Hints(0, 8))
    assert admitted(probe, 20000, [here, there]) == Hints(7, 8)
    assert admitted(probe, 20001, [here, there]) is None
    assert admitted(probe, 20000, [here, noted("b")]) == Hints(7, None), "the other host has forgotten it"
    assert admitted(probe, 20000, [here, there, here, noted("b")]) == Hints(7, 8), "it had known it before"
    assert admitted(probe, 20000, [here, noted("b", Hints(0, 0))]) == Hints(7, 0), "that is no rule, and wrong"
    assert admitted(probe, 20000, [noted("c", Hints(0, 0))]) is None, "neither end is there"
