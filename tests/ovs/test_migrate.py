"""Out of a real hybrid bridge (Linux bridge, veth pair, iptables) into the switch and back, under a TCP stream."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ovsfw.cli import main
from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.streams import download, inside, upload
from tests.running import running, until

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
ID, CLIENT = "7f3c0a1b-22cc-4333-8444-555566667777", "c11e0000-22cc-4333-8444-555566667777"
X = ID[:11]
TAP, QBR, QVB, QVO = (f"{kind}{X}" for kind in ("tap", "qbr", "qvb", "qvo"))
VLAN, OFPORT = 7, 5
SERVER, OPEN, CLOSED_BEFORE, CLOSED = "10.0.0.1", 80, 81, 82
RULES = [
    {"direction": "ingress", "protocol": "tcp", "port_range_min": OPEN, "port_range_max": CLOSED_BEFORE},
    {"direction": "ingress", "protocol": "tcp", "port_range_min": 1000, "port_range_max": 1100},
    {"direction": "egress"},
]


def space(n: int) -> str:
    return f"migrate{os.getpid()}-{n}"


@pytest.fixture(scope="module")
def host(ovs: PrivateSwitch) -> Iterator[PrivateSwitch]:
    """The VM behind a hybrid bridge, whose iptables let nothing to one port, and a client that is plugged directly."""
    ovs.add_bridge("br-int")
    here = ovs.netns
    try:
        for n, tap in ((1, TAP), (2, "tapclient")):
            peer = f"peer name eth0 address 52:54:00:00:00:0{n} netns {space(n)}"
            netns.batch([f"netns add {space(n)}"])
            netns.batch([f"link add name {tap} up type veth {peer}"], here)
            wake = f"ip addr add 10.0.0.{n}/24 dev eth0; ip link set eth0 up; ethtool -K eth0 tx off > /dev/null"
            netns.inside(space(n), "sh", "-c", wake)
        netns.inside(here, "sh", "-ec", f"""
            ip link add {QBR} type bridge; ip link add {QVB} type veth peer name {QVO}
            ip link set {QVB} master {QBR}; ip link set {TAP} master {QBR}
            for name in {QBR} {QVB} {QVO}; do ip link set $name up; done
            iptables -A FORWARD -m physdev --physdev-is-bridged --physdev-out {TAP} -p tcp --dport {CLOSED_BEFORE} \\
                -j DROP
            echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
        """)  # fmt: skip
        for name, ofport, port_id in ((QVO, OFPORT, ID), ("tapclient", 6, CLIENT)):
            port = ("add-port", "br-int", name, f"tag={VLAN}", "other_config:net=x", "--", "set", "interface", name)
            ovs.vsctl(*port, f"ofport_request={ofport}", f"external_ids:iface-id={port_id}")
        yield ovs
    finally:
        netns.remove([space(n) for n in (1, 2)])


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    ports = [
        {"id": name, "mac_address": f"52:54:00:00:00:0{n}", "fixed_ips": [{"ip_address": f"10.0.0.{n}"}],
         "security_groups": [group]}
        for n, name, group in ((1, ID, "server"), (2, CLIENT, "client"))
    ]  # fmt: skip
    groups = [{"id": "server", "rules": RULES}, {"id": "client", "rules": [{"direction": "egress"}]}]
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"security_groups": groups, "ports": ports}))
    return path


def migrate(host: PrivateSwitch, *words: str, status: int = 0) -> str:
    """What `ovsfw migrate` prints, where the network devices of the host are."""
    command = ["ip", "netns", "exec", host.netns, sys.executable, "-m", "ovsfw", "migrate", *words, "--db", host.db]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def planned(host: PrivateSwitch, *words: str) -> str:
    """What `ovsfw migrate plan` prints, which needs no network devices."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["migrate", "plan", "--db", host.db, *words]) == 0
    return said.getvalue()


def plan(host: PrivateSwitch, *more: str) -> dict[str, Any]:
    found = json.loads(planned(host, "--format", "json", *more))
    (ours,) = [each for each in found if each["port"] == ID]
    return dict(ours)


def reaches(port: int) -> bool:
    """Whether the client can open a connection; to a port that is let through it is refused, for nobody listens."""

    def connect() -> bool:
        try:
            socket.create_connection((SERVER, port), 1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    return inside(space(2), connect)


def test_a_port_leaves_its_hybrid_bridge_and_comes_back_under_tcp_streams(host: PrivateSwitch, policy: Path) -> None:
    with running(host, policy) as daemon:
        daemon.logged("in sync")
        before = plan(host)
        assert (before["device"], before["plugged"], before["filter"]) == (QVO, "hybrid", "ovsfw")
        assert before["differences"] == ["iptables still filter it in its hybrid bridge, too: move it out"]
        until(lambda: reaches(OPEN), "the VM is not reached")
        assert not reaches(CLOSED_BEFORE)
        streams = [upload(space(2), space(1), (SERVER, 1001)), download(space(2), space(1), (SERVER, 1002))]
        try:
            assert all(stream.goes_on() for stream in streams)
            assert f"{ID}: moved out" in migrate(host, "run", "--port", ID)
            after = plan(host)
            assert (after["device"], after["plugged"], after["filter"]) == (TAP, "moved", "ovsfw")
            assert (after["ofport"], after["vlan"]) == (OFPORT, VLAN)
            assert host.vsctl("get", "port", TAP, "other_config:net").strip() == "x"
            assert all(stream.goes_on() for stream in streams)
            # Nothing but the policy filters it now.
            assert reaches(CLOSED_BEFORE)
            assert not reaches(CLOSED)
            assert f"{ID}: put back" in migrate(host, "back")
            assert plan(host) == before
            assert all(stream.goes_on() for stream in streams)
            assert not reaches(CLOSED_BEFORE)
            assert not reaches(CLOSED)
        finally:
            for stream in streams:
                stream.close()


def test_what_ovsfw_does_not_filter_is_not_moved(host: PrivateSwitch, policy: Path) -> None:
    host.ofctl("del-flows", "br-int")
    told = plan(host, "--policy", str(policy))
    assert (told["plugged"], told["filter"]) == ("hybrid", "iptables_hybrid")
    assert "ovsfw does not filter" in migrate(host, "run", status=1)
    assert plan(host)["device"] == QVO
    assert "is not plugged in here" in migrate(host, "back", "--port", ID, status=1)


def test_what_cannot_be_moved_stays_where_it_was(host: PrivateSwitch, policy: Path) -> None:
    """The tap is in no bridge, or the switch does not take it."""
    with running(host, policy) as daemon:
        daemon.logged("in sync")
        before = plan(host)
        netns.inside(host.netns, "ip", "link", "set", TAP, "nomaster")
        assert f"{TAP} is not in {QBR}" in migrate(host, "run", status=1)
        netns.inside(host.netns, "ip", "link", "set", TAP, "master", QBR)
        host.vsctl("add-port", "br-int", TAP, "--", "set", "interface", TAP, "type=internal")
        try:
            assert f"{TAP} cannot take the place of {QVO}" in migrate(host, "run", status=1)
        finally:
            host.vsctl("del-port", "br-int", TAP)
        assert plan(host) == before


STOCK = """
table=60,priority=100,in_port=6,actions=resubmit(,71)
table=71,priority=0,actions=NORMAL
"""


def test_the_plan_tells_what_neutron_s_driver_filters_and_what_will_differ(host: PrivateSwitch, policy: Path) -> None:
    document = json.loads(policy.read_text())
    document["security_groups"][1]["stateful"] = False
    policy.write_text(json.dumps(document))
    host.ofctl("del-flows", "br-int")
    host.ofctl("add-flows", "br-int", "-", stdin=STOCK)
    told = planned(host, "--policy", str(policy))
    assert f"{CLIENT}: direct, filtered by openvswitch" in told
    assert "its groups are stateless, which the driver before ignored: answers will need rules" in told
    document["ports"].pop()
    policy.write_text(json.dumps(document))
    assert "the policy does not know it: it will pass nothing" in planned(host, "--policy", str(policy))
