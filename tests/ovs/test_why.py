"""`ovsfw why` on a real switch: it says what the policy says, and notices when the switch does something else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.utils import wrpcap

from ovsfw.cli import main
from ovsfw.compiler import NEUTRON, Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.identity import Identity
from ovsfw.compiler.pipeline import COMMIT, INGRESS_VERDICT
from ovsfw.explain.answer import answer
from ovsfw.explain.legs import NoLegError, legs, mac_for
from ovsfw.explain.live import Passage, passage
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.policy.verdict import Connection
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.trace import trace
from tests import strategies
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.ovs.typed import Typed
from tests.strategies import OFPORTS

pytestmark = pytest.mark.ovs
EXAMPLES = int(os.environ.get("OVSFW_EXAMPLES", "40"))

POLICY = """
security_groups:
  - id: web
    rules:
      - {id: http, direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 81}
      - {id: ssh, direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_group_id: bastion}
  - id: bastion
    rules:
      - {id: out, direction: egress}
tiers:
  - id: ops
    rules:
      - {id: no-81, direction: ingress, action: deny, protocol: tcp, port_range_min: 81, port_range_max: 81}
      - {id: scrape, direction: ingress, action: allow, protocol: tcp, port_range_min: 9100, port_range_max: 9100,
         remote_ip_prefix: 10.9.0.9/32}
ports:
  - {id: vm1, name: web1, mac_address: "52:54:00:00:00:01", fixed_ips: [{ip_address: 10.9.0.1}], security_groups: [web]}
  - {id: vm2, name: jump, mac_address: "52:54:00:00:00:02", fixed_ips: [{ip_address: 10.9.0.2}],
     security_groups: [bastion]}
  - {id: vm9, mac_address: "52:54:00:00:00:09", fixed_ips: [{ip_address: 10.9.0.9}], security_groups: [web, bastion]}
"""


@pytest.fixture(scope="module")
def host(ovs: PrivateSwitch, policy_file: Path) -> PrivateSwitch:
    """vm1 and vm2 are here in VLAN 7, with an uplink; vm9 is on another host."""
    ovs.add_bridge(BRIDGE)
    for ofport, name in ((1, "vm1"), (2, "vm2"), (3, "")):
        ids = [f"external_ids:iface-id={name}", "--", "set", "port", f"tap{ofport}", "tag=7"] if name else []
        interface = ("--", "set", "interface", f"tap{ofport}", "type=internal", f"ofport_request={ofport}")
        ovs.vsctl("add-port", BRIDGE, f"tap{ofport}", *interface, *ids)
    assert main(["apply", "--db", ovs.db, "--policy", str(policy_file)]) == 0
    return ovs


@pytest.fixture
def why(host: PrivateSwitch, policy_file: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys, "why", "--db", host.db, "--policy", str(policy_file))


def test_between_two_endpoints_of_this_host(why: Typed) -> None:
    status, out, err = why("jump", "->", "web1", "tcp/22")
    assert (status, err) == (0, "")
    assert "policy: ALLOWED" in out
    assert "bastion: anything to anywhere  [rule out]" in out
    assert "web: tcp/22 from group bastion  [rule ssh]" in out
    assert "switch br-int, from end to end: delivered to web1 (vm1), OpenFlow port 1" in out
    tables = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert [name for name in tables if name in ("classify", "egress_rules_v4", "ingress_rules_v4", "deliver")]
    assert out.splitlines()[-1] == "  the switch does what the policy says"


def test_the_nearest_rules_say_what_differs(why: Typed) -> None:
    status, out, _ = why("10.9.0.2", "52:54:00:00:00:01", "tcp/23")
    assert status == 0
    assert "ingress of web1 (vm1): denied: no ingress rule of its groups allows it" in out
    assert "[rule ssh]\n      but its port is 22, not 23" in out
    assert "dropped in ingress_verdict: no rule accepted it" in out


def test_a_tier_decides(why: Typed) -> None:
    """Where it denies, its rule is what would have to change; where nothing speaks, its rules may come nearest."""
    status, out, _ = why("vm2 -> vm1 tcp/81")
    assert status == 0
    assert "ingress of web1 (vm1): denied by\n    ops: deny tcp/81 from anywhere" in out
    assert "[rule no-81]" in out
    assert "nearest" not in out
    assert "dropped in ingress_verdict: a rule of a tier denies it" in out
    status, out, _ = why("vm9 -> vm1 tcp/9100")
    assert (status, "policy: ALLOWED" in out, "[rule scrape]" in out) == (0, True, True)
    status, out, _ = why("vm2 -> vm1 tcp/9100")
    assert status == 0
    assert "[rule scrape]\n      but 10.9.0.2 is not in 10.9.0.9" in out


@pytest.mark.parametrize(
    ("question", "said", "fate"),
    [
        ("vm2 -> 198.51.100.1 udp/53", "ALLOWED", "out of this host: left to the switch's own forwarding"),
        ("vm1 -> 198.51.100.1 udp/53", "DENIED", "out of this host: dropped in egress_verdict: no rule accepted it"),
        ("198.51.100.1 -> vm1 tcp/80", "ALLOWED", "into this host: delivered to web1 (vm1), OpenFlow port 1"),
        ("198.51.100.1 -> vm1 tcp/22", "DENIED", "into this host: dropped in ingress_verdict"),
        ("vm9 -> vm1 tcp/22", "ALLOWED", "into this host: delivered to web1 (vm1), OpenFlow port 1"),
        ("vm1 -> vm9 icmp", "DENIED", "out of this host: dropped in egress_verdict"),
        ("vm2 -> vm1 gre", "DENIED", "from end to end: dropped in ingress_verdict"),
        ("vm2 -> vm1 sctp/80", "DENIED", "from end to end: dropped in ingress_verdict"),
    ],
)
def test_far_ends(why: Typed, question: str, said: str, fate: str) -> None:
    status, out, err = why(question)
    assert (status, err) == (0, "")
    assert f"policy: {said}" in out
    assert f"switch br-int, {fate}" in out


def test_a_difference_is_said_loudly(why: Typed, host: PrivateSwitch) -> None:
    """A flow of somebody else before the rules, and a rule that is gone."""
    hole = f"table={INGRESS_VERDICT.number},priority=900,tcp,tp_dst=23"
    host.ofctl("add-flow", BRIDGE, f"{hole},actions=resubmit(,{COMMIT.number})")
    status, out, _ = why("vm2 -> vm1 tcp/23")
    host.ofctl("--strict", "del-flows", BRIDGE, hole)
    assert status == 2
    assert "THE SWITCH DIFFERS: by the policy it does not get through" in out
    assert "another program's flow: tcp,tp_dst=23, priority 900" in out
    host.ofctl("add-flow", BRIDGE, "table=0,priority=2000,in_port=2,actions=drop")
    status, out, _ = why("vm2 -> vm1 tcp/22")
    host.ofctl("--strict", "del-flows", BRIDGE, "table=0,priority=2000,in_port=2")
    assert status == 2
    assert "dropped in hook: a flow of another program, in_port=2" in out
    assert why("vm2 -> vm1 tcp/22")[0] == 0


def frame(source: str, mac: int = 2, flags: str = "S") -> Packet:
    ether = Ether(src=f"52:54:00:00:00:{mac:02x}", dst="52:54:00:00:00:01")
    return ether / IP(src=source, dst="10.9.0.1") / TCP(sport=4000, dport=22, flags=flags)


def test_a_captured_packet(why: Typed, tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "x.pcap"), [Ether() / IP() / UDP(), frame("10.9.0.2", flags="SA")])
    status, out, _ = why("--pcap", str(tmp_path / "x.pcap"), "--packet", "2")
    assert status == 0
    assert "tcp 10.9.0.2:4000 -> 10.9.0.1:22 (not the first packet of its connection; judged as if it were)" in out
    assert "policy: ALLOWED" in out
    assert "the packet itself: delivered to web1 (vm1)" in out


def test_a_forged_packet(why: Typed) -> None:
    """The address of vm9 with the MAC of vm2; and vm9's own packet, sent by vm2."""
    status, out, _ = why("--hex", bytes(frame("10.9.0.9")).hex(" "))
    assert status == 0
    assert "spoof guard: 10.9.0.9 with MAC 52:54:00:00:00:02 is not an address of this port" in out
    assert "dropped in spoof_guard" in out
    status, out, _ = why("vm2", "--hex", bytes(frame("10.9.0.9", mac=9)).hex())
    assert status == 0
    assert "dropped in spoof_guard" in out


def test_a_packet_of_which_the_policy_says_nothing(why: Typed) -> None:
    lie = Ether(src="52:54:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.9.0.1", hwsrc="52:54:00:00:00:02")
    status, out, _ = why("--hex", bytes(lie).hex())
    assert status == 0
    assert "says nothing of packets that are not unicast IP" in out
    assert "dropped in spoof_guard" in out


def test_json_says_the_same(why: Typed) -> None:
    status, out, _ = why("--format", "json", "vm2 -> vm1 tcp/23")
    said = json.loads(out)
    assert (status, said["allowed"], said["agrees"]) == (0, False, True)
    assert [rule["id"] for rule in said["egress"]["rules"]] == ["out"]
    near = {rule["id"]: rule["differs"] for rule in said["ingress"]["nearest"]}
    assert near == {"http": {"ports": "its ports are 80-81, not 23"}, "ssh": {"ports": "its port is 22, not 23"}}
    assert said["switch"][0]["tables"][-1]["table"] == "ingress_verdict"


def test_without_a_switch(policy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["why", "--db", f"unix:{tmp_path}/db.sock", "--policy", str(policy_file), "vm2 -> vm1 tcp/22"]
    assert main(question) == 0
    asked = capsys.readouterr()
    assert "the switch was not asked: ovsdb-server is not running" in asked.err
    assert main([*question, "--offline"]) == 0
    offline = capsys.readouterr()
    assert (offline.out, offline.err) == (asked.out, "")


# --- In other places -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dummy(dummy_ovs: PrivateSwitch) -> DummySwitch:
    return DummySwitch(dummy_ovs, OFPORTS)


@pytest.mark.parametrize(
    ("question", "fate"),
    [
        ("vm2 -> vm1 tcp/22", "from end to end: delivered to web1 (vm1), OpenFlow port 1"),
        ("vm2 -> vm1 tcp/81", "from end to end: dropped in ingress_verdict: a rule of a tier denies it"),
        ("vm2 -> 198.51.100.1 udp/53", "out of this host: left to the switch's own forwarding"),
        ("198.51.100.1 -> vm1 tcp/80", "into this host: delivered to web1 (vm1), OpenFlow port 1"),
    ],
)
def test_inside_the_flows_of_neutrons_agent(
    dummy: DummySwitch, policy_file: Path, capsys: pytest.CaptureFixture[str], question: str, fate: str
) -> None:
    add_agent_flows(dummy.switch, BRIDGE)
    bindings = Bindings((Binding("vm1", 1, 7), Binding("vm2", 2, 7)), tuple(map(Uplink, OFPORTS[2:])))
    dummy.wire(bindings)
    plugs = [("--", "set", "interface", f"p{bound.ofport}", f"external_ids:iface-id={bound.port_id}")
             for bound in bindings.endpoints]  # fmt: skip
    dummy.switch.vsctl(*chain.from_iterable(plugs))
    dummy.keep_connections(compile_policy(parse(policy_file.read_text(), "policy"), bindings, NEUTRON))
    try:
        assert main(["why", "--db", dummy.switch.db, "--policy", str(policy_file), question]) == 0
    finally:
        dummy.switch.ofctl("del-flows", BRIDGE)
    out = capsys.readouterr().out
    assert f"switch br-int, {fate}" in out
    assert "another program's flow: any, priority 0" in out
    assert out.splitlines()[-1] == "  the switch does what the policy says"


# --- For any policy: a second judge of law 2 --------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_the_switch_agrees_for_any_policy(dummy: DummySwitch, data: st.DataObject) -> None:
    policy = data.draw(strategies.policies())
    bindings = data.draw(strategies.bindings_for(policy))
    dummy.wire(bindings)
    dummy.keep_connections(compile_policy(policy, bindings))
    for _ in range(data.draw(st.integers(1, 8))):
        connection = data.draw(strategies.connections(policy))
        if goes_by_a_shared_mac(policy, connection):
            continue
        for each in passages(dummy, policy, bindings, connection):
            assert each.agrees, f"{each.leg}: {each.fate}"


def goes_by_a_shared_mac(policy: Policy, connection: Connection) -> bool:
    """Several ports answer for it (VRRP): which of them gets the packet is nothing that a policy says."""
    if connection.receiver is None:
        return False
    receiver = policy.ports[connection.receiver]
    mac = mac_for(receiver, connection.destination)
    return sum(mac in port.macs for port in policy.ports.values() if port.network_id == receiver.network_id) > 1


def passages(dummy: DummySwitch, policy: Policy, bindings: Bindings, connection: Connection) -> Iterator[Passage]:
    identity = Identity(policy, bindings)
    try:
        found = legs(policy, bindings, answer(policy, connection))
    except NoLegError:
        return
    for leg in found:
        said = asyncio.run(trace(control_socket(rundir=dummy.switch.rundir), dummy.bridge, leg.flow))
        yield passage(identity, dummy.bridge, leg, said)
