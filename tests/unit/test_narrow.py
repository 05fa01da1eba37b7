"""The narrowest rule that some connections need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovsfw.explain.narrow import enclosing, narrowest, wider_than_used
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.document import parse
from ovsfw.policy.model import PortRange, Remote, RemoteAddressGroup, RemoteGroup
from ovsfw.policy.verdict import TCP, UDP, Connection

POLICY = parse(
    """
security_groups:
  - {id: big}
  - {id: small}
  - {id: web, rules: [{id: open, direction: ingress}]}
address_groups: [{id: office, addresses: [10.9.0.0/24]}]
ports:
  - {id: a, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [big, small]}
  - {id: b, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [big]}
""",
    "policy",
)
(OPEN,) = POLICY.rules


def came(source: str, port: int, protocol: int = TCP) -> Connection:
    return Connection(None, None, Prefix.parse(source), Prefix.parse("10.9.0.9"), protocol, 40000, port)


@pytest.mark.parametrize(
    ("sources", "remote"),
    [
        (["10.9.0.1"], RemoteGroup("small")),
        (["10.9.0.1", "10.9.0.2"], RemoteGroup("big")),
        (["10.9.0.1", "10.9.0.7"], Prefix.parse("10.9.0.0/29")),
        (["1.1.1.1", "200.1.1.1"], None),
    ],
)
def test_the_remote_is_the_smallest_group_or_the_longest_prefix(sources: list[str], remote: Remote) -> None:
    assert narrowest(POLICY, OPEN, [came(source, 80) for source in sources]).remote == remote


def test_the_service_is_that_of_one_protocol_and_all_its_ports() -> None:
    needed = narrowest(POLICY, OPEN, [came("10.9.0.1", 80), came("10.9.0.1", 443)])
    assert (needed.protocol, needed.ports) == (TCP, PortRange(80, 443))
    needed = narrowest(POLICY, OPEN, [came("10.9.0.1", 80), came("10.9.0.1", 53, UDP)])
    assert (needed.protocol, needed.ports) == (None, None)


def test_a_remote_that_is_a_group_stays_and_a_rule_that_is_narrow_is_no_finding() -> None:
    office = replace(OPEN, remote=RemoteAddressGroup("office"), protocol=TCP, ports=PortRange(80, 80))
    assert list(wider_than_used(POLICY, [(office, came("10.9.0.1", 80))])) == []
    (finding,) = wider_than_used(POLICY, [(OPEN, came("10.9.0.1", 80))])
    assert finding.message == (
        "allows anything from anywhere, but its 1 live connection needs only tcp/80 from group small"
    )


def test_one_prefix_has_all() -> None:
    assert str(enclosing([Prefix.parse("10.9.0.1")])) == "10.9.0.1"
    assert str(enclosing([Prefix.parse("2001:db8::1"), Prefix.parse("2001:db8::ffff")])) == "2001:db8::/112"
    assert str(enclosing([Prefix.parse("1.1.1.1"), Prefix.parse("200.1.1.1")])) == "0.0.0.0/0"
