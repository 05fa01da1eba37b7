"""What Neutron's agent hands over, enforced on a real switch beside the agent's own flows; needs no Neutron."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.neutron.engine import Engine
from ovsfw.neutron.logbook import LogBook
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.ovs.packets.bench import address, mac
from tests.ovs.packets.frames import tcp
from tests.running import PATIENCE

pytestmark = pytest.mark.ovs
VLAN, DEAD = 7, 4095
UPLINK = 9


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def name(number: int) -> str:
    return f"port-{number}"


def port(number: int, *groups: str, **more: Any) -> dict[str, Any]:
    return {
        "device": name(number),
        "mac_address": mac(number),
        "fixed_ips": [address(4, number), address(6, number)],
        "security_groups": list(groups),
        **more,
    }


def rule(direction: str = "ingress", **more: Any) -> dict[str, Any]:
    return {"direction": direction, "ethertype": "IPv4", **more}


@pytest.fixture(scope="module")
def host(dummy_ovs: PrivateSwitch) -> DummySwitch:
    """Ports 1 to 4 belong to VMs, 9 is the way out; all are wired."""
    switch = DummySwitch(dummy_ovs, (1, 2, 3, 4, UPLINK))
    for number in (1, 2, 3, 4):
        dummy_ovs.vsctl("set", "interface", f"p{number}", f"external_ids:iface-id={name(number)}")
    switch.tag((1, 2, 3, 4), VLAN)
    return switch


@pytest.fixture
def engine(host: DummySwitch) -> Iterator[Engine]:
    host.switch.ofctl("del-flows", BRIDGE)
    add_agent_flows(host.switch, BRIDGE)
    host.forget()
    made = Engine(BRIDGE, host.switch.db)
    yield made
    made.close()
    host.tag((1, 2, 3, 4), VLAN)


def reaches(host: DummySwitch, sender: int, receiver: int, dport: int = 80) -> bool:
    """Whether a new connection's first packet arrives."""
    host.forget()
    frame = bytes(tcp(4, f"vm{sender}", f"vm{receiver}", dport=dport))
    return receiver in host.send(sender, frame)


def hand_over(engine: Engine) -> None:
    """Port 1 serves a group that port 2 is in, and port 3 is not."""
    source = engine.source
    source.take_rules("web", [rule(protocol="tcp", port_range_min=80, port_range_max=80, remote_group_id="app")])
    source.take_rules("app", [rule("egress")])
    source.take_members("app", {"IPv4": [(address(4, 2), mac(2))]})
    for data in (port(1, "web"), port(2, "app"), port(3, "other")):
        source.take_port(data)
    source.take_rules("other", [rule("egress")])


def ours(host: DummySwitch) -> list[str]:
    flows = host.switch.ofctl("dump-flows", BRIDGE, "--no-stats").splitlines()
    return sorted(line for line in flows if "cookie=0xf5f" in line)


def test_until_the_agent_has_handed_over_ports_nothing_is_touched(engine: Engine, host: DummySwitch) -> None:
    engine.source.take_rules("web", [rule()])
    assert not engine.flush()
    engine.source.drop([name(1)])
    assert not engine.flush()
    assert ours(host) == []
    hand_over(engine)
    assert engine.flush()
    assert len(ours(host)) > 100


def test_members_of_a_remote_group_and_nobody_else(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    assert reaches(host, 2, 1)
    assert not reaches(host, 2, 1, dport=81)
    assert not reaches(host, 3, 1)
    engine.source.take_members("app", {"IPv4": [(address(4, 3), mac(3))]})
    assert engine.flush()
    assert reaches(host, 3, 1)
    assert not reaches(host, 2, 1)


def test_a_port_of_which_the_agent_has_said_nothing_passes_nothing(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    assert not reaches(host, 4, 1)
    assert not reaches(host, 2, 4)
    engine.source.trust([name(4)])
    assert engine.flush()
    assert reaches(host, 2, 4)


def test_a_port_that_is_taken_back_passes_nothing(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    engine.source.drop([name(2)])
    assert engine.flush()
    assert not reaches(host, 2, 1)


def test_a_port_without_port_security_is_not_filtered_until_it_is(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    engine.source.take_port(port(1, port_security_enabled=False))
    assert engine.flush()
    assert reaches(host, 3, 1)
    engine.source.take_port(port(1, "web"))
    assert engine.flush()
    assert not reaches(host, 3, 1)


@pytest.mark.parametrize("vlan", [0, DEAD])
def test_ports_that_have_no_vlan_yet_wait_for_it(engine: Engine, host: DummySwitch, vlan: int) -> None:
    """The agent hands over ports before it has wired them; nobody calls when it has."""
    host.tag([1, 2], vlan)
    hand_over(engine)
    assert engine.flush()
    assert not reaches(host, 2, 1)
    host.tag([1, 2], VLAN)
    until(lambda: reaches(host, 2, 1))


def test_another_agent_that_says_the_same_changes_no_flow(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    before = host.switch.ofctl("dump-flows", BRIDGE)
    again = Engine(BRIDGE, host.switch.db)
    try:
        hand_over(again)
        assert again.flush()
        assert again.modified == 0
    finally:
        again.close()
    assert before.count("cookie=0xf5f") == len(ours(host))


def test_beside_the_daemon_it_refuses_to_begin(host: DummySwitch) -> None:
    lock = f"import fcntl; f = open({str(host.switch.rundir / 'ovsfw.pid')!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    daemon = subprocess.Popen(
        [sys.executable, "-c", f"{lock}; print(f.name, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        with pytest.raises(ConfigError, match="ovsfw is running already"):
            Engine(BRIDGE, host.switch.db)
    finally:
        daemon.communicate(b"\n")


def test_a_switch_that_was_restarted_gets_its_flows_back(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    expected = ours(host)
    host.switch.ofctl("del-flows", BRIDGE)
    add_agent_flows(host.switch, BRIDGE)
    engine.doubt()
    until(lambda: ours(host) == expected)


def test_the_agent_is_told_when_the_switch_is_away_and_it_is_mended_later(engine: Engine, host: DummySwitch) -> None:
    hand_over(engine)
    assert engine.flush()
    host.switch.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow13")
    engine.source.take_members("app", {"IPv4": []})
    assert not engine.flush()
    host.switch.vsctl("set", "bridge", BRIDGE, "protocols=OpenFlow10,OpenFlow14")
    until(lambda: not reaches(host, 2, 1))


def test_a_wrong_port_is_closed_and_told(engine: Engine, host: DummySwitch, caplog: pytest.LogCaptureFixture) -> None:
    hand_over(engine)
    engine.source.take_port(port(1, "web", mac_address="nonsense"))
    assert engine.flush()
    assert not reaches(host, 2, 1)
    assert "port port-1: 'nonsense' is not a MAC address; it passes nothing" in caplog.text


def test_what_leaves_comes_to_the_flows_of_the_agent(engine: Engine, host: DummySwitch) -> None:
    """And what comes in with a VLAN tag finds its way to a VM."""
    hand_over(engine)
    assert engine.flush()
    out = host.send(2, bytes(tcp(4, "vm2", "uplink", dport=443)))
    assert set(out) == {UPLINK}
    host.switch.ofctl("add-flow", BRIDGE, "table=60,priority=101,tcp,tp_dst=443,actions=drop")
    host.forget()
    assert host.send(2, bytes(tcp(4, "vm2", "uplink", dport=443))) == {}


def test_answers_from_outside_arrive_tagged_and_tracked_by_others(engine: Engine, host: DummySwitch) -> None:
    """They belong to the connection that the VM began, not to what conntrack made of them before the hook."""
    hand_over(engine)
    assert engine.flush()
    host.forget()
    assert set(host.send(2, bytes(tcp(4, "vm2", "uplink", dport=443)))) == {UPLINK}
    answer = bytes(tcp(4, "uplink", "vm2", sport=443, dport=30000, flags="SA", seq=2000, ack=1001))
    tag = b"\x81\x00" + VLAN.to_bytes(2, "big")
    assert set(host.send(UPLINK, answer[:12] + tag + answer[12:])) == {2}


def test_log_objects_get_the_decisions_they_ask_for(host: DummySwitch) -> None:
    """One wants all of port 1, which is of a group, the other what the port without groups drops."""
    host.switch.ofctl("del-flows", BRIDGE)
    add_agent_flows(host.switch, BRIDGE)
    book, written = LogBook(), list[str]()
    book.is_used, book.write, book.burst = True, written.append, 123
    engine = Engine(BRIDGE, host.switch.db, book)
    try:
        hand_over(engine)
        engine.source.take_port(port(4))
        assert engine.flush()
        reaches(host, 2, 1)
        rules = [{"security_group_id": "web"}]
        ports = [{"port_id": name(1), "security_group_rules": rules}, {"port_id": name(4), "security_group_rules": []}]
        book.take([{"id": "log1", "project_id": "p", "event": "ALL", "ports_log": ports}])
        book.on_change()

        def logs(sender: int, receiver: int, action: str, rule: str) -> bool:
            reaches(host, sender, receiver)
            wanted = (f"action={action} project_id=p log_resource_ids=['log1'] vm_port={name(receiver)}", rule)
            return any(all(part in line for part in wanted) for line in written)

        until(lambda: logs(2, 1, "ACCEPT", '"rule": "web/ingress-ipv4-tcp-80-from-app"'))
        until(lambda: logs(3, 1, "DROP", "no rule accepted it"))
        until(lambda: logs(2, 4, "DROP", "no rule accepted it"))
        assert not [line for line in written if name(2) in line or name(3) in line]
        assert "burst_size=123" in host.switch.ofctl("dump-meters", BRIDGE)
        book.drop(["log1"])
        book.on_change()
        assert "controller" not in host.switch.ofctl("dump-flows", BRIDGE)
    finally:
        engine.close()


STOCK = """
table=60,priority=100,in_port=2,actions=ct_clear,load:2->NXM_NX_REG5[],load:7->NXM_NX_REG6[],resubmit(,71)
table=60,priority=90,ip,dl_vlan=7,actions=ct_clear,strip_vlan,load:7->NXM_NX_REG6[],ct(table=82,zone=NXM_NX_REG6[0..15])
table=71,priority=65,ct_state=-trk,ip,actions=ct(table=72,zone=NXM_NX_REG6[0..15])
table=72,priority=50,ct_mark=0x1,actions=drop
table=72,priority=1,ip,actions=ct(commit,zone=NXM_NX_REG6[0..15]),output:9
table=82,priority=50,ct_mark=0x1,actions=drop
table=82,priority=50,ct_state=+est-rel+rpl,actions=output:2
table=82,priority=1,tcp,tp_dst=80,actions=ct(commit,zone=NXM_NX_REG6[0..15]),output:2
"""
CUT = "table=82,priority=40,ip,ct_state=+est-rel-rpl,actions=ct(commit,zone=7,exec(load:1->NXM_NX_CT_MARK[]))"
SERVES, ASKS = {"sport": 80, "dport": 30000}, {"sport": 30000, "dport": 80}


@pytest.fixture
def stock(host: DummySwitch) -> DummySwitch:
    """Neutron's driver filters port 2."""
    host.switch.ofctl("del-flows", BRIDGE)
    add_agent_flows(host.switch, BRIDGE)
    host.switch.ofctl("add-flows", BRIDGE, "-", stdin=STOCK)
    host.forget()
    return host


def sends(host: DummySwitch, sender: str, receiver: str, **more: Any) -> set[int]:
    frame = bytes(tcp(4, sender, receiver, **more))
    tag = b"\x81\x00" + VLAN.to_bytes(2, "big")
    port, frame = (2, frame) if sender == "vm2" else (UPLINK, frame[:12] + tag + frame[12:])
    return set(host.send(port, frame))


def test_connections_of_neutron_s_driver_go_on_behind_ours(stock: DummySwitch) -> None:
    """It keeps them in the same zones, without our marks; who is answered need not send first."""
    begin, go_on = {"sport": 30000, "dport": 443}, {"sport": 443, "dport": 30000}
    assert sends(stock, "vm2", "uplink", **begin, flags="S", seq=99) == {UPLINK}
    assert sends(stock, "uplink", "vm2", **go_on, flags="SA", seq=999, ack=100) == {2}
    assert sends(stock, "vm2", "uplink", **begin, flags="A", seq=100, ack=1000) == {UPLINK}
    engine = Engine(BRIDGE, stock.switch.db)
    try:
        hand_over(engine)
        assert engine.flush()
        stock.switch.ofctl("del-flows", BRIDGE, "table=82")
        until(lambda: sends(stock, "uplink", "vm2", **go_on, flags="PA", seq=1000, ack=100) == {2})
        assert sends(stock, "uplink", "vm2", **{**go_on, "dport": 30001}, flags="PA", seq=1000, ack=100) == set()
    finally:
        engine.close()


def test_connections_that_neutron_s_driver_has_cut_stay_so_until_they_are_allowed(stock: DummySwitch) -> None:
    """It marks them 1.  The VM that served may send by its rules, but its answers make no connection of their own."""
    assert sends(stock, "uplink", "vm2", **ASKS, flags="S", seq=99) == {2}
    assert sends(stock, "vm2", "uplink", **SERVES, flags="SA", seq=999, ack=100) == {UPLINK}
    assert sends(stock, "uplink", "vm2", **ASKS, flags="A", seq=100, ack=1000) == {2}
    stock.switch.ofctl("add-flow", BRIDGE, CUT)

    def asks() -> set[int]:
        return sends(stock, "uplink", "vm2", **ASKS, flags="PA", seq=100, ack=1000)

    def serves() -> set[int]:
        return sends(stock, "vm2", "uplink", **SERVES, flags="PA", seq=1000, ack=107)

    assert (asks(), serves()) == (set(), set())
    engine = Engine(BRIDGE, stock.switch.db)
    try:
        hand_over(engine)
        assert engine.flush()
        assert sends(stock, "vm2", "uplink", dport=443) == {UPLINK}
        assert (serves(), asks(), serves()) == (set(), set(), set())
        engine.source.take_rules("app", [rule("egress"), rule(protocol="tcp", port_range_min=80, port_range_max=80)])
        assert engine.flush()
        assert (serves(), asks()) == ({UPLINK}, {2})
    finally:
        engine.close()
