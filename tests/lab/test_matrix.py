"""The truth table agrees where policy and packets agree, and names every probe where they do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsfw.cli import main
from ovsfw.lab.machines import BRIDGE, Place
from ovsfw.lab.matrix import measure
from ovsfw.lab.topology import Lab, down, up
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy

pytestmark = [pytest.mark.ovs, pytest.mark.packets]

# Two networks with the same addresses, one rule for each direction and family: everything passes.
OPEN = """
security_groups:
  - id: open
    rules:
      - {direction: egress}
      - {direction: egress, ethertype: IPv6}
      - {direction: ingress}
      - {direction: ingress, ethertype: IPv6}
      - {direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 54, remote_ip_prefix: 192.0.2.0/24}
ports:
  - {id: a, mac_address: "52:54:00:00:00:01", security_groups: [open],
     fixed_ips: [{ip_address: 10.8.0.1}, {ip_address: "2001:db8:8::1"}]}
  - {id: b, mac_address: "52:54:00:00:00:02", security_groups: [open],
     fixed_ips: [{ip_address: 10.8.1.2}, {ip_address: "2001:db8:8:1::2"}]}
  - {id: c, mac_address: "52:54:00:00:00:01", security_groups: [open], network_id: red,
     fixed_ips: [{ip_address: 10.8.0.1}]}
  - {id: d, mac_address: "52:54:00:00:00:02", security_groups: [open], network_id: red,
     fixed_ips: [{ip_address: 10.8.1.2}]}
"""


@pytest.fixture(scope="module")
def open_policy() -> Policy:
    return parse(OPEN, "open.yaml")


@pytest.fixture(scope="module")
def open_lab(place: Place, open_policy: Policy) -> Iterator[Lab]:
    lab = up(open_policy, place)
    yield lab
    down(place)


def flows(lab: Lab, *lines: str) -> None:
    lab.switch.ofctl("replace-flows", BRIDGE, "-", stdin="".join(f"{line}\n" for line in lines))


def test_everything_passes_a_learning_switch(open_lab: Lab, open_policy: Policy) -> None:
    flows(open_lab, "priority=0,actions=NORMAL")

    matrix = asyncio.run(measure(open_lab, open_policy))

    assert [outcome.problems for outcome in matrix.differences] == []
    assert all(outcome.passed for outcome in matrix.outcomes)
    named = {str(service) for service in matrix.services}
    assert named == {"icmp", "tcp/4444", "udp/53", "udp/54"}
    # On each network two machines, the gateway and 192.0.2.1 (which has IPv4 only): 10 pairs in IPv4, 6 in IPv6.
    assert len(matrix.outcomes) == 4 * (10 + 10 + 6)


def test_nothing_passes_a_switch_without_flows(open_lab: Lab, open_policy: Policy) -> None:
    flows(open_lab)

    matrix = asyncio.run(measure(open_lab, open_policy))

    assert not any(outcome.passed for outcome in matrix.outcomes)
    assert matrix.summary == "matrix: 104 probes, 0 agree, 104 differ"


def matrix_command(lab: Lab, directory: Path, policy: str) -> list[str]:
    file = directory / "policy.yaml"
    file.write_text(policy)
    place = lab.place
    return ["lab", "matrix", "--name", place.name, "--directory", str(place.directory), "--policy", str(file)]


def test_a_difference_is_named(open_lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flows(open_lab, "priority=0,actions=NORMAL", "priority=9,udp,nw_src=10.8.0.1,tp_dst=54,actions=drop")

    assert main(matrix_command(open_lab, tmp_path, OPEN)) == 1

    said = "the policy says allowed, the packets say denied (silent)"
    dropped = [
        ("a", "b"),
        ("a", "outside"),
        ("a", "192.0.2.0/24"),
        ("c", "d"),
        ("c", "outside-2"),
        ("c", "192.0.2.0/24-2"),
    ]
    lines = capsys.readouterr().out.splitlines()
    differences = [line for line in lines if line.startswith("differs:")]
    assert differences == [f"differs: {one} -> {other} udp/54 IPv4: {said}" for one, other in dropped]
    assert lines[-1] == "matrix: 104 probes, 98 agree, 6 differ"


def test_a_packet_that_arrives_unanswered_is_seen(
    open_lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flows(open_lab, "priority=0,actions=NORMAL", "priority=9,udp,nw_dst=10.8.0.1,tp_src=53,actions=drop")
    closed = OPEN.replace("- {direction: ingress}", "- {direction: ingress, protocol: tcp}")

    assert main([*matrix_command(open_lab, tmp_path, closed), "--format", "json"]) == 1

    found = json.loads(capsys.readouterr().out)
    seen = {(probe["from"], probe["to"], probe["service"], probe["ethertype"]): probe for probe in found["results"]}
    assert found["differ"] == sum(bool(probe["problems"]) for probe in found["results"]) > 0
    unanswered = seen["a", "b", "udp/53", "IPv4"]
    assert (unanswered["expected"], unanswered["passed"], unanswered["how"]) == (False, False, "silent")
    assert unanswered["problems"] == ["the policy says denied, but the packet arrived"]
    answered = seen["b", "a", "udp/53", "IPv4"]
    assert answered["problems"] == ["the policy says denied, the packets say allowed (answered by a)"]
    assert seen["a", "b", "tcp/4444", "IPv4"]["ingress"]["rules"] == ["open/ingress-ipv4-tcp"]


def test_the_switch_names_the_wrong_rule(open_lab: Lab, open_policy: Policy) -> None:
    commit = "ct(commit,zone=0x1000,exec(set_field:0x8000000180000001->ct_label)),NORMAL"
    flows(open_lab, "priority=0,actions=NORMAL", f"priority=9,icmp,icmp_type=8,nw_src=10.8.0.1,actions={commit}")

    matrix = asyncio.run(measure(open_lab, open_policy))

    seen = {str(outcome.probe): outcome.problems for outcome in matrix.differences}
    wrong = "the switch names an unknown rule 0x80000001"
    assert seen["a -> b icmp IPv4"] == (f"egress: {wrong}", f"ingress: {wrong}")
