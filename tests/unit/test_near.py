"""The rules that almost allow a connection."""

from __future__ import annotations

import pytest

from ovsfw.policy.addresses import Prefix
from ovsfw.policy.document import parse
from ovsfw.policy.model import Direction
from ovsfw.policy.near import nearest
from ovsfw.policy.verdict import ICMP, TCP, UDP, UDPLITE, Connection

IN = Direction.INGRESS
TEXT = """
security_groups:
  - id: web
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 81}
      - {id: ssh, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: web}
      - {id: dns, direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53,
         remote_address_group_id: office}
      - {id: ping, direction: ingress, protocol: icmp, port_range_min: 8, port_range_max: 0,
         remote_ip_prefix: 10.0.0.0/8}
      - {id: six, direction: ingress, ethertype: IPv6}
  - id: empty
address_groups: [{id: office, addresses: [192.0.2.0/24]}]
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web, empty]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [empty]}
"""
POLICY = parse(TEXT, "test")


def to_vm1(source: str, protocol: int, port: int = 0, kind: int = 0) -> Connection:
    return Connection(None, "vm1", Prefix.parse(source), Prefix.parse("10.9.0.1"), protocol, 4000, port, icmp_type=kind)


TIERS = """
tiers:
  - id: ops
    applies_to: [web]
    rules:
      - {id: scrape, direction: ingress, action: allow, protocol: tcp, port_range_min: 9100, port_range_max: 9100}
      - {id: deny, direction: ingress, action: deny, protocol: tcp, port_range_min: 9102, port_range_max: 9102}
      - {id: rest, direction: ingress, action: pass, protocol: tcp}
      - {id: never, direction: ingress, action: allow, protocol: tcp, port_range_min: 9101, port_range_max: 9102}
  - {id: more, rules: [{id: never-either, direction: ingress, action: allow, remote_ip_prefix: 10.9.0.8/32}]}
  - {id: last, position: after, rules: [{id: after, direction: ingress, action: allow, remote_ip_prefix: 10.9.0.9/32}]}
"""


def test_tiers_may_come_nearest_but_for_what_would_not_be_asked() -> None:
    known = parse(f"{TEXT}{TIERS}", "test")
    found = {miss.rule.id: str(miss) for miss in nearest(known, known.ports["vm1"], to_vm1("10.9.0.2", TCP, 9103), IN)}
    assert found.keys() == {"scrape", "http", "after"}
    assert found["scrape"] == "its port is 9100, not 9103"
    assert found["after"] == "10.9.0.2 is not in 10.9.0.9"
    other = {miss.rule.id for miss in nearest(known, known.ports["vm2"], to_vm1("10.9.0.2", TCP, 9103), IN)}
    assert other == {"never-either", "after"}


@pytest.mark.parametrize(
    ("connection", "near"),
    [
        (
            to_vm1("10.9.0.1", TCP, 443),
            {"http": "its ports are 80-81, not 443", "ssh": "its port is 22, not 443"},
        ),
        (
            to_vm1("10.9.0.2", TCP, 22),
            {"http": "its ports are 80-81, not 22", "ssh": "10.9.0.2 is not in group web"},
        ),
        (to_vm1("10.9.0.2", UDP, 53), {"dns": "10.9.0.2 is not in addresses office"}),
        (to_vm1("11.0.0.1", ICMP, kind=8), {"ping": "11.0.0.1 is not in 10.0.0.0/8"}),
        (to_vm1("10.0.0.1", ICMP, kind=3), {"ping": "its ICMP type is 8, not 3"}),
        (
            to_vm1("10.0.0.1", 47),
            {name: f"its protocol is {said}, not gre" for name, said in (("http", "tcp"), ("ping", "icmp"))}
            | {"six": "it is for IPv6"},
        ),
    ],
)
def test_the_nearest(connection: Connection, near: dict[str, str]) -> None:
    """The best comes first; what is much further away is left out."""
    found = nearest(POLICY, POLICY.ports["vm1"], connection, IN)
    assert [(miss.rule.id, str(miss)) for miss in found] == list(near.items())


def test_all_that_differs_is_said() -> None:
    policy = parse(
        """
security_groups:
  - {id: g, rules: [{id: r, direction: ingress, protocol: udplite, port_range_min: 1, port_range_max: 9,
                     remote_ip_prefix: 192.0.2.0/24}]}
ports: [{id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [g]}]
""",
        "test",
    )
    (miss,) = nearest(policy, policy.ports["vm1"], to_vm1("10.0.0.1", UDPLITE, 5), IN)
    assert str(miss) == "Open vSwitch cannot match ports of udplite; 10.0.0.1 is not in 192.0.2.0/24"


def test_nothing_is_near_where_there_are_no_rules() -> None:
    assert nearest(POLICY, POLICY.ports["vm2"], to_vm1("10.9.0.1", TCP, 1), IN) == ()
    assert nearest(POLICY, POLICY.ports["vm1"], to_vm1("10.9.0.1", TCP, 1), Direction.EGRESS) == ()
