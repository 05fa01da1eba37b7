"""`ovsfw run --log-decisions` on a real switch: what is logged, how much of a flood, and that nothing else changes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ovsfw.cli import main
from ovsfw.compiler.pipeline import INGRESS_VERDICT
from ovsfw.compiler.recording import LOG_ACCEPTED, LOG_BURST, LOG_METERS, LOG_RATE, LOGGER
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.text import format_actions
from tests.dummy import DummySwitch
from tests.running import Process, running, until

pytestmark = pytest.mark.ovs

POLICY = """
security_groups:
  - id: web
    log: dropped
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80, log: accepted}
      - {id: quiet, direction: ingress, protocol: tcp, port_range_min: 81, port_range_max: 81}
      - {id: dns, direction: ingress, protocol: udp, port_range_min: 53, port_range_max: 53, log: all}
  - {id: talker, rules: [{id: out, direction: egress}]}
  - {id: counted, stateful: false, log: accepted, rules: [{id: each, direction: egress}]}
tiers:
  - id: top
    rules:
      - {id: no-smtp, direction: egress, protocol: tcp, port_range_min: 25, port_range_max: 25, action: reject,
         log: all}
      - {id: no-pop, direction: egress, protocol: tcp, port_range_min: 110, port_range_max: 110, action: deny}
ports:
  - {id: vm1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}], security_groups: [talker]}
  - {id: vm3, mac_address: "52:54:00:00:00:03", fixed_ips: [{ip_address: 10.9.0.3}], security_groups: [counted]}
"""


def packet(source: int, destination: int, layer: Packet) -> bytes:
    """Between two of vm1, vm2, vm3."""
    macs = Ether(src=f"52:54:00:00:00:0{source}", dst=f"52:54:00:00:00:0{destination}")
    return bytes(macs / IP(src=f"10.9.0.{source}", dst=f"10.9.0.{destination}") / layer)


def to_vm1(port: int, flags: str = "S", source_port: int = 4000) -> bytes:
    return packet(2, 1, TCP(sport=source_port, dport=port, flags=flags, seq=1, ack=1))


class Host:
    """vm1 to vm3 on a bridge, a daemon that logs, and the file it logs to."""

    def __init__(self, switch: DummySwitch, daemon: Process, policy: Path, file: Path) -> None:
        self.switch, self.daemon, self.policy, self.file = switch, daemon, policy, file
        self._marks = 0

    def lines(self, *sent: bytes) -> list[dict[str, Any]]:
        """What is logged so far, in whole lines, after vm2 has sent some packets."""
        if sent:
            self.switch.send(2, *sent)
        text = self.file.read_text() if self.file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def logged(self, *sent: tuple[int, bytes]) -> list[dict[str, Any]]:
        """What is logged of some packets: all that comes before one that surely is."""
        before = len(self.lines())
        for port, data in sent:
            self.switch.send(port, data)
        self._marks += 1
        mark = 20000 + self._marks
        self.switch.send(2, packet(2, 1, UDP(sport=mark, dport=53)))
        until(lambda: any(line.get("source_port") == mark for line in self.lines()), "the last is not logged")
        return [line for line in self.lines()[before:] if line.get("source_port") != mark]


@pytest.fixture(scope="module")
def host(dummy_ovs: PrivateSwitch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory: Path = tmp_path_factory.mktemp("log")
    policy, file = directory / "policy.yaml", directory / "decisions.json"
    policy.write_text(POLICY)
    switch = DummySwitch(dummy_ovs, (1, 2, 3))
    for ofport in (1, 2, 3):
        dummy_ovs.vsctl("set", "interface", f"p{ofport}", f"external_ids:iface-id=vm{ofport}")
    try:
        with running(dummy_ovs, policy, "--log-decisions", str(file)) as daemon:
            daemon.logged("in sync")
            # The first packets may come before anybody listens.
            made = Host(switch, daemon, policy, file)
            until(lambda: made.lines(to_vm1(9)), "nothing is logged")
            made.logged()
            yield made
    finally:
        dummy_ovs.vsctl("--if-exists", "del-br", "br-int")


def test_a_new_connection_is_logged_once(host: Host) -> None:
    answer = packet(1, 2, TCP(sport=80, dport=4000, flags="SA", seq=1, ack=2))
    found = host.logged((2, to_vm1(80)), (1, answer), (2, to_vm1(80, "A")), (2, to_vm1(80, "PA")), (1, answer))
    (line,) = found
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "verdict": "accepted",
        "direction": "ingress",
        "port": "vm1",
        "rule": "http",
        "security_group": "web",
        "protocol": "tcp",
        "source": "10.9.0.2",
        "destination": "10.9.0.1",
        "source_port": 4000,
        "destination_port": 80,
        "reason": "a rule accepted it",
    }
    assert host.logged((2, to_vm1(81))) == []


def test_a_drop_is_logged_where_the_group_or_the_rule_asks_for_it(host: Host) -> None:
    found = host.logged((2, to_vm1(23)), (1, packet(1, 2, TCP(dport=5))), (2, to_vm1(25)), (2, to_vm1(110)))
    assert [
        (line["verdict"], line["port"], line["direction"], line["destination_port"], line["reason"], line.get("rule"))
        for line in found
    ] == [
        ("dropped", "vm1", "ingress", 23, "no rule accepted it", None),
        ("dropped", "vm1", "egress", 5, "no rule accepted it", None),
        ("dropped", "vm2", "egress", 25, "a rule of a tier rejects it", "no-smtp"),
    ]
    assert found[2]["tier"] == "top"


def test_stateless_rules_log_every_packet(host: Host) -> None:
    found = host.logged(*[(3, packet(3, 2, TCP(dport=7, flags="A")))] * 3)
    assert [(line["port"], line["rule"]) for line in found] == [("vm3", "each")] * 3


def test_verify_knows_of_the_copies_and_a_lost_meter_comes_back(host: Host) -> None:
    ovs = host.switch.switch
    assert main(["verify", "--db", ovs.db, "--policy", str(host.policy)]) == 0
    ovs.ofctl("del-meters", "br-int")
    host.daemon.ask("reconcile")
    meters = ovs.ofctl("dump-meters", "br-int")
    assert all(f"meter={number} " in meters for number in LOG_METERS)
    assert len(host.logged((2, to_vm1(80, source_port=4001)))) == 1


def dropped(host: Host) -> int:
    """Packets that the flow has dropped which logs for vm1's ingress."""
    host.switch.call("revalidator/purge")
    flows = host.switch.switch.ofctl("dump-flows", "br-int", f"table={INGRESS_VERDICT.number}")
    return sum(int(found) for found in re.findall(r"n_packets=(\d+).*priority=50,", flows))


def test_a_flood_is_metered_and_a_policy_change_goes_through(host: Host) -> None:
    """Thousands of packets are dropped: few lines, all that is accepted passes, a change is made meanwhile."""
    before, packets, began = len(host.lines()), dropped(host), time.monotonic()
    received = host.switch.received(2)
    for turn in range(100):
        # No more, for a dummy port keeps only a hundred that wait.
        host.switch.send(2, *[to_vm1(23)] * 50)
        accepted = packet(3, 1, TCP(sport=5000 + turn, dport=81))
        if 1 not in host.switch.send(3, accepted):
            until(lambda: 1 in host.switch.sent(), "what is accepted does not pass")
        if turn == 50:
            host.policy.write_text(POLICY.replace("port_range_max: 81}", "port_range_max: 82}"))
            until(lambda: "tp_dst=82," in host.daemon.ask("dump"), "no change", 10)
    took = time.monotonic() - began
    packets = dropped(host) - packets
    assert packets == host.switch.received(2) - received
    lines = [line for line in host.lines()[before:] if line["verdict"] == "dropped"]
    assert len(lines) < packets
    assert 0 < len(lines) <= LOG_BURST + LOG_RATE * (took + 1)
    assert host.daemon.in_sync()["healthy"]


def test_the_file_is_opened_again(host: Host) -> None:
    old = host.file.rename(host.file.with_suffix(".1"))
    size = old.stat().st_size
    host.daemon.ask("reload")
    until(lambda: host.lines(to_vm1(9)), "nothing is logged")
    assert old.stat().st_size == size


def test_without_the_option_nothing_is_logged_and_the_daemon_says_so(host: Host) -> None:
    ovs = host.switch.switch
    assert format_actions((LOG_ACCEPTED,)) in ovs.ofctl("dump-flows", "br-int")
    host.daemon.end()
    with running(ovs, host.policy) as daemon:
        daemon.logged("the policy says `log`, and nothing is logged; start the daemon with --log-decisions")
        daemon.in_sync()
        assert f"id={LOGGER}" not in ovs.ofctl("dump-flows", "br-int")
