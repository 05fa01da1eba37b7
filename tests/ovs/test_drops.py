"""`ovsfw drops`: a daemon takes down what the switch drops, and a flood is met by a meter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from ovsfw.cli import main
from ovsfw.cli.compile import assume
from ovsfw.compiler.identity import Identity
from ovsfw.compiler.pipeline import EGRESS_GATE, INGRESS_VERDICT, SPOOF_GUARD, Reason, cookie
from ovsfw.compiler.recording import BURST, METERS
from ovsfw.explain.drops import PER_ENDPOINT, Recorder
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.packet_in import PacketIn, read_packet_in
from ovsfw.openflow.wire import Message, WireError
from ovsfw.policy.document import parse
from tests.dummy import DummySwitch
from tests.ovs.packets.frames import cut
from tests.ovs.test_show import POLICY
from tests.running import Process, running, until

pytestmark = pytest.mark.ovs


def segment(port: int, source: str = "10.9.0.2") -> Packet:
    return Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01") / IP(src=source, dst="10.9.0.1") / TCP(dport=port)


class Host:
    """A bridge with vm1, vm2 and a stranger, and a daemon that takes drops down."""

    def __init__(self, switch: DummySwitch, daemon: Process, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.switch, self.daemon, self.policy, self.capsys = switch, daemon, policy, capsys

    def command(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        status = main([words[0], *words[1:], "--db", self.switch.switch.db])
        return status, *self.capsys.readouterr()

    def drops(self, *words: str) -> list[dict[str, Any]]:
        status, out, err = self.command("drops", *words, "--format", "json")
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def counts(self, *words: str) -> dict[tuple[str, str, str, str], int]:
        status, out, err = self.command("drops", *words, "--count", "--format", "json")
        assert (status, err) == (0, "")
        return {kind_of(row): row["copies"] for row in json.loads(out)}

    def flood(self) -> bool:
        self.switch.call("netdev-dummy/receive", "p2", *[bytes(segment(23)).hex()] * 100)
        return True


@pytest.fixture
def host(dummy_ovs: PrivateSwitch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Host]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    switch = DummySwitch(dummy_ovs, (1, 2, 3))
    for ofport, name in ((1, "vm1"), (2, "vm2"), (3, "stray")):
        dummy_ovs.vsctl("set", "interface", f"p{ofport}", f"external_ids:iface-id={name}")
    try:
        with running(dummy_ovs, policy) as daemon:
            daemon.logged("in sync")
            # The first packets may come before anybody listens.
            made = Host(switch, daemon, policy, capsys)
            until(lambda: switch.send(2, bytes(segment(9))) or made.drops(), "nothing is taken down")
            yield made
    finally:
        dummy_ovs.vsctl("--if-exists", "del-br", "br-int")


def test_what_is_dropped_is_taken_down(host: Host) -> None:
    host.switch.send(2, bytes(segment(23)), bytes(segment(80, "10.9.0.77")))
    host.switch.send(3, bytes(segment(80)))
    host.switch.send(2, bytes(Ether(src="52:54:00:00:00:02") / ARP(psrc="10.9.0.1", hwsrc="52:54:00:00:00:02")))
    until(lambda: len([each for each in host.drops() if ":9 " not in f"{each['packet']} "]) >= 4, "not all are there")
    found = {(each["endpoint"], each["side"], each["table"], each["packet"].split(" ->")[0]) for each in host.drops()}
    assert ("vm1", "ingress", "ingress_verdict", "tcp 10.9.0.2:20") in found
    assert ("vm2", "egress", "spoof_guard", "tcp 10.9.0.77:20") in found
    assert ("vm2", "egress", "spoof_guard", "arp 10.9.0.1") in found
    assert ("stray", "", "classify", "tcp 10.9.0.2:20") in found
    only = host.drops("web1")
    assert {each["endpoint"] for each in only} == {"vm1"}
    assert {"protocol": 6, "source": "10.9.0.2", "destination": "10.9.0.1"}.items() <= only[-1]["details"].items()
    status, out, _ = host.command("drops", "vm1")
    assert status == 0
    assert "[ingress_verdict: no rule accepted it]" in out
    assert "copies were taken, of" in out


def test_what_was_dropped_is_counted_by_endpoint_side_and_reason(host: Host) -> None:
    host.switch.send(2, *[bytes(segment(23))] * 3, bytes(segment(80, "10.9.0.77")))
    until(lambda: ("vm1", "ingress", "ingress_verdict", "no rule accepted it") in host.counts(), "they are not counted")
    until(lambda: sum(host.counts().values()) == len(host.drops()), "some are not counted")
    found = {kind: sum(kind == kind_of(each) for each in host.drops()) for kind in host.counts()}
    assert found == host.counts()
    assert ("vm2", "egress", "spoof_guard", Reason.SPOOF.text) in found
    assert {kind[0] for kind in host.counts("web1")} == {"vm1"}
    status, out, _ = host.command("drops", "--count")
    assert status == 0
    assert out.splitlines()[0].split() == ["endpoint", "side", "table", "copies", "reason"]
    assert "copies were taken, of" in out.splitlines()[-1]


def test_of_a_denied_datagram_in_fragments_the_first_is_told(host: Host) -> None:
    """The others have no ports: they wait at the gate for a first one that is accepted, and conntrack keeps them."""
    ends = Ether(src="52:54:00:00:00:02", dst="52:54:00:00:00:01") / IP(src="10.9.0.2", dst="10.9.0.1")
    assert host.switch.send(2, *map(bytes, cut(ends / UDP(dport=7) / bytes(3000), 1280, 2560))) == {}
    host.switch.send(2, bytes(segment(23)))
    until(lambda: [each for each in host.drops("vm1") if ":23" in each["packet"]], "what came later is not there")
    found = [each["packet"] for each in host.drops() if each["packet"].startswith("udp")]
    assert found == ["udp 10.9.0.2:53 -> 10.9.0.1:7"]


def test_a_change_names_what_was_dropped_lately_and_would_pass(host: Host, tmp_path: Path) -> None:
    host.switch.send(2, bytes(segment(23)), bytes(segment(24)), bytes(segment(23)), bytes(segment(23, "10.9.0.77")))
    until(lambda: len([each for each in host.drops("vm1") if ":23" in each["packet"]]) >= 2, "not all are there")
    wider = tmp_path / "wider.yaml"
    wider.write_text(POLICY.replace("port_range_min: 22, port_range_max: 22", "port_range_min: 22, port_range_max: 23"))
    status, out, _ = host.command("diff", "--policy", str(wider))
    assert status == 2
    (line,) = [line for line in out.splitlines() if line.startswith("open: ")]
    assert line.startswith("open: tcp 10.9.0.2:20 -> 10.9.0.1:23  vm2 -> web1 (vm1)  dropped 2 times, last at ")
    _, out, _ = host.command("diff", "--policy", str(wider), "--format", "json")
    (found,) = json.loads(out)["connections"]["open"]
    assert (found["sender"], found["receiver"], found["destination_port"], found["dropped"]) == ("vm2", "vm1", 23, 2)
    assert "open: " not in host.command("diff", "--policy", str(host.policy))[1]
    host.daemon.end()
    assert "open: " not in host.command("diff", "--policy", str(wider))[1]


def kind_of(drop: dict[str, Any]) -> tuple[str, str, str, str]:
    return drop["endpoint"], drop["side"], drop["table"], drop["reason"]


def test_a_flood_is_metered_and_what_is_accepted_is_not(host: Host) -> None:
    """More than a meter lets through: some are copied, all that came in are counted (a dummy port is soon full)."""
    before, received = host.command("drops")[1].splitlines()[-1], host.switch.received(2)
    until(lambda: host.flood() and host.switch.received(2) - received >= 10 * BURST, "the port took in too little")
    host.switch.call("revalidator/purge")
    after = host.command("drops")[1].splitlines()[-1]
    (sampled, dropped), (sampled_before, dropped_before) = map(numbers, (after, before))
    assert dropped - dropped_before == host.switch.received(2) - received
    assert 0 < sampled - sampled_before <= 4 * BURST < 1000
    assert len(host.drops("vm1")) <= PER_ENDPOINT
    for _ in range(10):
        assert 1 in host.switch.send(2, bytes(segment(80)))


def numbers(line: str) -> tuple[int, int]:
    words = line.strip("()").split()
    return int(words[0]), int(words[5])


def test_verify_knows_of_the_copies_and_a_lost_meter_comes_back(host: Host) -> None:
    assert host.command("verify", "--policy", str(host.policy))[0] == 0
    host.switch.switch.ofctl("del-meters", "br-int")
    host.daemon.ask("reconcile")
    assert host.switch.switch.ofctl("dump-meters", "br-int").count("meter=") == len(METERS)
    assert 1 in host.switch.send(2, bytes(segment(80)))


def test_errors(host: Host) -> None:
    status, _, err = host.command("drops", "wbe1")
    assert status == 1
    assert "did you mean web1" in err
    host.daemon.end()
    status, _, err = host.command("drops")
    assert status == 1
    assert "no daemon runs" in err


@pytest.mark.parametrize("why", ["--no-record-drops", "no meters"])
def test_without_it_what_is_dropped_is_dropped(host: Host, why: str) -> None:
    """Open vSwitch itself refuses a meter 0."""
    host.daemon.end()
    words = () if why == "no meters" else (why,)
    before = "from ovsfw.compiler import recording\nrecording.METERS = (0,)" if why == "no meters" else ""
    with running(host.switch.switch, host.policy, *words, before=before) as daemon:
        daemon.in_sync()
        if why == "no meters":
            daemon.logged("not taken down .*the switch refused a meter")
        assert "controller(" not in host.switch.switch.ofctl("dump-flows", "br-int")
        assert host.switch.send(2, bytes(segment(23))) == {}
        assert 1 in host.switch.send(2, bytes(segment(80)))
        status, _, err = host.command("drops")
        assert (status, "nothing is taken down" in err) == (1, True)


# --- The recorder alone -----------------------------------------------------------------------------------------------


def test_the_memory_is_bounded() -> None:
    policy = parse(POLICY, "test")
    identity, recorder = Identity(policy, assume(policy)), Recorder()
    copy = PacketIn(INGRESS_VERDICT.number, cookie(Reason.DENIED), bytes(segment(23)), {5: 1})
    for number in range(200):
        assert recorder.add(identity, copy, float(number))
    assert recorder.sampled == 200
    assert recorder.counts == {"vm1": {("ingress", "ingress_verdict", "no rule accepted it"): 200}}
    assert [record.when for record in recorder.last()] == [float(number) for number in range(150, 200)]
    assert recorder.add(identity, copy._replace(cookie=77), 0.0) is None
    (_, later) = cut(segment(23) / bytes(1400), 1280)
    gate = copy._replace(table=EGRESS_GATE.number, cookie=cookie(Reason.INVALID), packet=bytes(later))
    waited = recorder.add(identity, gate, 2.0)
    assert waited is not None
    assert (waited.endpoint, waited.side, waited.table) == ("vm1", "egress", "egress_gate")
    assert waited.packet == "tcp fragment 10.9.0.2 -> 10.9.0.1"
    short = recorder.add(identity, PacketIn(SPOOF_GUARD.number, cookie(Reason.SPOOF), b"\1\2", {}), 1.0)
    assert short is not None
    assert (short.endpoint, short.packet) == ("", "0102")


def test_nonsense_from_the_switch() -> None:
    assert read_packet_in(Message(5, 3, 1, bytes(16))) is None
    with pytest.raises(WireError):
        read_packet_in(Message(5, 4, 1, bytes.fromhex("000023200000001e0000ffff")))
