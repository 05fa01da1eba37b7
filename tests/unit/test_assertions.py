"""Assertions: decided exactly, with a counterexample that is one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsfw.cli import main
from ovsfw.errors import PolicyError
from ovsfw.lab.shapes import shape
from ovsfw.policy import services
from ovsfw.policy.addresses import Family, Prefix, link_local
from ovsfw.policy.assertions import Assertion, OnePort, Outcome, Selector, Whoever, judge
from ovsfw.policy.document import parse, read
from ovsfw.policy.model import Action, Policy, Port, Position, RemoteAddressGroup, RemoteGroup, Tier, member_addresses
from ovsfw.policy.reach import span_of
from ovsfw.policy.spans import contains
from ovsfw.policy.verdict import owns, verdict
from tests.strategies import policies, rules, with_source_ports

SHOP = """
security_groups:
  - id: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: bastion}
      - {direction: egress, protocol: tcp, port_range_min: 5432, port_range_max: 5432, remote_group_id: db}
  - id: db
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 5432, port_range_max: 5432, remote_group_id: web}
  - id: bastion
    rules:
      - {direction: egress}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_address_group_id: office}
  - id: empty
address_groups:
  - {id: office, addresses: [198.51.100.0/24]}
ports:
  - {id: web1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: web2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [web]}
  - {id: jump, mac_address: "52:54:00:00:00:03", fixed_ips: [{ip_address: 10.9.0.3}], security_groups: [bastion]}
  - {id: db1, mac_address: "52:54:00:00:00:04", fixed_ips: [{ip_address: 10.9.0.4}], security_groups: [db]}
"""


def outcomes(*lines: str, document: str = SHOP) -> list[Outcome]:
    return list(read(document + "assertions:\n" + "".join(f"  - {{{line}}}\n" for line in lines), "t").judge())


def errors(*lines: str, document: str = SHOP) -> list[str]:
    """What is wrong, without the place."""
    with pytest.raises(PolicyError) as caught:
        parse(document + "assertions:\n" + "".join(f"  - {{{line}}}\n" for line in lines), "t")
    return [str(problem).split(": ", 1)[1] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("from: web, to: db, allowed: tcp/5432", True),
        ("from: web, to: db, allowed: tcp/5431-5432", False),
        ("from: web, to: db, denied: any, except_services: tcp/5432", True),
        ("from: web, to: db, denied: any", False),
        ("from: outside, to: web, allowed: tcp/80", True),
        ("from: outside, to: web, denied: any, except_services: [tcp/80]", True),
        ("from: any, to: ports, except_to: jump, except_from: jump, denied: tcp/22", True),
        ("from: outside, to: ports, except_to: jump, denied: tcp/22", True),
        ("from: outside, to: ports, denied: tcp/22", False),
        ("from: outside, to: jump, except_from: office, denied: tcp", True),
        ("from: office, to: jump, allowed: tcp/22", True),
        ("from: 198.51.100.0/23, to: jump, allowed: tcp/22", False),
        ("from: 198.51.100.0/25, to: jump, allowed: tcp/22", True),
        ("from: 10.9.0.3, to: web, allowed: [tcp/22, tcp/80]", True),
        ("from: 10.9.0.0/30, to: db, allowed: tcp/5432", False),  # jump is in it
        ("from: jump, to: outside, allowed: any, ethertype: IPv4", True),
        ("from: web, to: outside, denied: any", True),
        ("from: web, to: web, denied: any", True),  # nobody is its own remote
        ("from: jump, to: jump, allowed: any", True),
    ],
)
def test_assertions(line: str, holds: bool) -> None:  # noqa: FBT001
    (outcome,) = outcomes(line)
    assert outcome.holds is holds


def test_a_failure_names_a_connection_and_what_decides() -> None:
    missing, open_, both = errors(
        "id: db, from: web, to: db, allowed: tcp/5431-5432",
        "from: outside, to: ports, denied: tcp/22",
        "from: [web1, jump], to: db, denied: tcp/5432",
    )
    assert missing == (
        "assertions[0]: 'db' does not hold: tcp 10.9.0.1:40000 -> 10.9.0.4:5431 (web1 to db1) is denied: "
        "out of web1 no egress rule of its groups allows it (its groups: web); "
        "into db1 no ingress rule of its groups allows it (its groups: db)"
    )
    assert open_ == (
        "assertions[1]: 'outside to ports: tcp/22 denied' does not hold: tcp 198.51.100.1:40000 -> 10.9.0.3:22 "
        "(outside to jump) is allowed: into jump by rule bastion/ingress-ipv4-tcp-22-from-addresses:office"
    )
    assert both == (
        "assertions[2]: 'web1, jump to db: tcp/5432 denied' does not hold: tcp 10.9.0.1:40000 -> 10.9.0.4:5432 "
        "(web1 to db1) is allowed: out of web1 by rule web/egress-ipv4-tcp-5432-to-db; "
        "into db1 by rule db/ingress-ipv4-tcp-5432-from-web"
    )


def test_link_local_addresses_count_where_nothing_may_pass() -> None:
    """An IPv6 rule opens a port that has no IPv6 address in the policy."""
    open_v6 = SHOP.replace(
        "  - id: db\n    rules:\n",
        "  - id: db\n    rules:\n      - {direction: ingress, ethertype: IPv6, protocol: tcp}\n",
    )
    (outcome,) = outcomes("from: outside, to: db, denied: tcp/22", document=open_v6)
    assert outcome.connection is not None
    assert str(outcome.connection.destination) == "fe80::5054:ff:fe00:4"


def test_who_may_send_from_anywhere_is_not_only_itself() -> None:
    forger = '  - {id: evil, mac_address: "52:54:00:00:00:05", security_groups: [bastion2], '
    forger += "allowed_address_pairs: [{ip_address: 0.0.0.0/0}]}\n"
    group = "  - {id: bastion2, rules: [{direction: egress}]}\naddress_groups:"
    (outcome,) = outcomes(
        "from: evil, to: web, denied: tcp/22", document=SHOP.replace("address_groups:", group) + forger
    )
    assert outcome.connection is not None
    assert str(outcome.connection.source) == "10.9.0.3"  # the address of jump


def test_nothing_to_judge_is_told() -> None:
    nobody, somebody = outcomes("from: empty, to: web, allowed: tcp/80", "from: web, to: db, allowed: tcp/5432")
    assert (nobody.holds, nobody.judged) == (True, False)
    assert somebody.judged


def test_what_is_wrong_with_an_assertion() -> None:
    assert errors(
        "from: wbe, to: web, allowed: tcp/80",
        "from: web, allowed: tcp/80",
        "from: web, to: db",
        "from: web, to: db, allowed: tcp, denied: udp",
        "from: web, to: db, alowed: tcp",
        "from: group:wbe, to: port:web, denied: any",
        "from: [web, 1.5], to: [], denied: tpc",
        "from: 10.9.0.256, to: web, denied: tcp/22-21",
        "from: web, to: db, denied: tcp/70000",
        "from: web, to: db, denied: icmp/8, ethertype: IPv6",
        "id: same, from: web, to: db, denied: udp",
        "id: same, from: web, to: db, denied: sctp",
    ) == [
        "assertions[0].from: nothing has the id or name 'wbe'; did you mean web?",
        "assertions[1].to: to is required",
        "assertions[2]: allowed or denied is required: the services that must be so, like tcp/443, or any",
        "assertions[3].denied: given besides allowed; make two assertions of it",
        "assertions[4]: allowed or denied is required: the services that must be so, like tcp/443, or any",
        "assertions[4].alowed: unknown key 'alowed'; did you mean allowed?",
        "assertions[5].from: no security group has the id or name 'wbe'; did you mean web?",
        "assertions[5].to: no port has the id or name 'web'; did you mean web2?",
        "assertions[6].from[1]: 1.5 is not text",
        "assertions[6].to: an empty list; leave the key out, or name something",
        "assertions[6].denied: 'tpc' is not a protocol; did you mean tcp?",
        "assertions[7].from: '10.9.0.256' is not an IP address or prefix",
        "assertions[7].denied: 'tcp/22-21' is not a service: the range is backwards",
        "assertions[8].denied: 'tcp/70000' is not a service: the highest number here is 65535",
        "assertions[9].denied: 'icmp/8' is no service of IPv6",
        "assertions[11]: 'same' is the id of assertions[10] already",
    ]


def test_a_name_that_two_have_needs_its_kind() -> None:
    document = SHOP.replace("id: jump", "id: bastion")
    assert errors("from: bastion, to: web, allowed: tcp/22", document=document) == [
        "assertions[0].from: 'bastion' can mean port:bastion, group:bastion; say which"
    ]
    assert outcomes("from: port:bastion, to: group:web, allowed: tcp/22", document=document)[0].holds


def test_check_reports_all_failures_and_can_ignore_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(
        SHOP + "assertions:\n  - {from: web, to: db, denied: any}\n  - {from: db, to: web, allowed: tcp}\n"
        "  - {from: empty, to: db, denied: any}\n"
    )
    assert main(["check", "--policy", str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, [line.split(": ")[:2] for line in err.splitlines()]) == (
        "",
        [[f"{path}:24:5", "assertions[0]"], [f"{path}:25:5", "assertions[1]"]],
    )
    assert main(["compile", "--policy", str(path)]) == 1
    assert "assertions[0]" in capsys.readouterr().err
    assert main(["compile", "--policy", str(path), "--no-assertions"]) == 0
    out, err = capsys.readouterr()
    assert "table=" in out
    assert err.count("IGNORED because of --no-assertions") == 2
    assert main(["check", "--policy", str(path), "--no-assertions", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["assertions"] == 3
    assert found["warnings"][0].startswith("assertion 'empty to db: any denied' has nothing to judge")
    assert len(found["warnings"]) == 3


@pytest.mark.timeout(60)
def test_many_ports_and_groups_are_judged_in_seconds() -> None:
    """500 ports, 100 groups of 30 rules: 0.1 s for a service; whether a port may ask another for anything, 11 s."""
    document = shape("large")
    document["ports"] = [port for port in document["ports"] if port["id"].startswith("local-")]
    policy = parse(json.dumps(document), "large")
    assert (len(policy.ports), len(policy.security_groups)) == (500, 100)
    asked = [
        Assertion(service, allowed=False, sources=(Whoever.ANY,), destinations=(Whoever.PORTS,), services=(service,))
        for service in ("tcp/9999", "gre", "icmp")
    ]
    assert [outcome.holds for outcome in judge(policy, asked)] == [True, True, True]


def test_tiers_are_asked_first() -> None:
    tier = "tiers:\n  - {id: guard, rules: [{action: deny, direction: ingress, protocol: tcp, port_range_min: 22, "
    tier += "port_range_max: 22, remote_group_id: bastion}]}\n"
    (outcome,) = outcomes("from: jump, to: web, denied: tcp/22", document=SHOP + tier)
    assert outcome.holds
    assert errors("from: jump, to: web, allowed: tcp/22", document=SHOP + tier)[0].endswith(
        "into web1 rule tier:guard/deny-ingress-ipv4-tcp-22-from-bastion of tier guard denies it"
    )


# --- beside brute force ----------------------------------------------------------------------------------------------

SERVICES = ("tcp", "tcp/80", "tcp/79-81", "udp/1024-65535", "icmp", "ping", "gre", "any")
# Either side of the borders that the strategies draw; none of DHCP.
SOURCE_PORTS = (0, 1, 29999, 30000, 30001, 30002)
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "12"))


def selectors(policy: Policy) -> st.SearchStrategy[Selector]:
    prefixes = [Prefix.parse(text) for text in ("10.0.0.0/30", "192.0.2.0/24", "2001:db8::/126", "0.0.0.0/1")]
    return st.one_of(
        st.sampled_from(sorted(policy.ports)).map(OnePort),
        st.sampled_from(sorted(policy.security_groups)).map(RemoteGroup),
        st.sampled_from(sorted(policy.address_groups)).map(RemoteAddressGroup),
        st.sampled_from(prefixes),
        st.sampled_from(Whoever),
    )


@st.composite
def tiers(draw: st.DrawFn, groups: list[str]) -> tuple[Tier, ...]:
    found = []
    for name in range(draw(st.integers(1, 2))):
        chosen = [draw(rules(f"tier-{name}/{index}", groups, ["set-0", "set-1"])) for index in range(3)]
        acting = tuple(replace(rule, action=draw(st.sampled_from(Action))) for rule in chosen)
        scope = draw(st.none() | st.just((groups[0],)))
        found.append(Tier(str(name), "", draw(st.sampled_from(Position)), scope, acting))
    return tuple(found)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Policy, Assertion]:
    policy = draw(policies(max_ports=4))
    if draw(st.sampled_from((True, False, False))):
        policy = draw(with_source_ports(policy))
    if not policy.tiers and draw(st.booleans()):
        policy = replace(policy, tiers=draw(tiers(sorted(policy.security_groups))))
    some = st.lists(selectors(policy), min_size=1, max_size=2).map(tuple)
    few = st.lists(selectors(policy), max_size=1).map(tuple)
    names = st.sampled_from(SERVICES)
    return policy, Assertion(
        "a",
        draw(st.booleans()),
        draw(some),
        draw(some),
        (draw(names),),
        draw(few),
        draw(few),
        draw(st.sampled_from(((), ("tcp/80",), ("icmp",)))),
        draw(st.sampled_from(((Family.IPV4,), (Family.IPV6,)))),
    )


def mentioned(policy: Policy) -> Iterator[Prefix]:
    for port in policy.ports.values():
        yield from (claim.prefix for claim in port.claims)
        yield from map(link_local, port.macs)
    yield from (rule.remote for rule in policy.rules if isinstance(rule.remote, Prefix))
    for addresses in policy.address_groups.values():
        yield from addresses.prefixes


def candidates(policy: Policy, assertion: Assertion, family: Family) -> set[int]:
    """Every border of every prefix, and what is beside it."""
    named = [each for each in (*assertion.sources, *assertion.destinations) if isinstance(each, Prefix)]
    named += [each for each in (*assertion.except_sources, *assertion.except_destinations) if isinstance(each, Prefix)]
    spans = [span_of(prefix) for prefix in (*mentioned(policy), *named) if prefix.family is family]
    spans += [(0, 0), (1, (1 << family.bits) - 1)]
    return {value for first, last in spans for value in (first, last, last + 1) if value < 1 << family.bits}


def belongs(policy: Policy, port: Port | None, address: Prefix, *, strict: bool) -> bool:
    """Whether a machine may use an address, as docs/policy.md has it."""
    is_outside = not any(own.contains(address) for each in policy.ports.values() for own in member_addresses(each))
    if port is None:
        return is_outside
    if not strict:
        return address in port.fixed_ips
    return owns(port, address) or (not port.port_security and is_outside)


def is_meant(policy: Policy, selector: Selector, port: Port | None, address: Prefix) -> bool:
    if isinstance(selector, Prefix):
        return selector.contains(address)
    if isinstance(selector, RemoteAddressGroup):
        return any(prefix.contains(address) for prefix in policy.address_groups[selector.id].prefixes)
    if port is None:
        return selector in {Whoever.OUTSIDE, Whoever.ANY}
    if isinstance(selector, OnePort):
        return port.id == selector.id
    return selector.id in port.security_groups if isinstance(selector, RemoteGroup) else selector != Whoever.OUTSIDE


def ends(
    policy: Policy, assertion: Assertion, chosen: Iterable[Selector], left_out: Iterable[Selector]
) -> list[tuple[str | None, Prefix]]:
    (family,) = assertion.families
    found = []
    for port in (None, *policy.ports.values()):
        for value in sorted(candidates(policy, assertion, family)):
            address = Prefix(family, value, family.bits)
            if (
                belongs(policy, port, address, strict=not assertion.allowed)
                and any(is_meant(policy, selector, port, address) for selector in chosen)
                and not any(is_meant(policy, selector, port, address) for selector in left_out)
            ):
                found.append((port.id if port else None, address))
    return found


def points(policy: Policy, assertion: Assertion) -> list[int]:
    (family,) = assertion.families
    wanted = assertion.wanted(family)
    asked = [services.of_rule(rule) for rule in policy.rules if rule.family is family]
    borders = {first for first, _ in wanted}
    borders |= {border for spans in asked for first, last in spans for border in (first, last + 1)}
    return sorted(border for border in borders if contains(wanted, border))


@given(cases())
@settings(max_examples=EXAMPLES, deadline=None)
def test_assertions_are_decided_as_by_trying_everything(case: tuple[Policy, Assertion]) -> None:
    policy, assertion = case
    (outcome,) = judge(policy, [assertion])
    senders = ends(policy, assertion, assertion.sources, assertion.except_sources)
    receivers = ends(policy, assertion, assertion.destinations, assertion.except_destinations)
    tried = [
        services.connection(point, (services.End(*sender), services.End(*receiver)), source_port)
        for sender in senders
        for receiver in receivers
        if sender[0] != receiver[0]
        for point in points(policy, assertion)
        for source_port in SOURCE_PORTS
    ]
    assert outcome.judged is bool(tried)
    assert outcome.holds is all(verdict(policy, each).allowed is assertion.allowed for each in tried)
    if outcome.connection is not None:
        found = outcome.connection
        assert verdict(policy, found).allowed is not assertion.allowed
        for name, address, strict in (
            (found.sender, found.source, not assertion.allowed),
            (found.receiver, found.destination, not assertion.allowed),
        ):
            assert belongs(policy, policy.ports[name] if name else None, address, strict=strict)
