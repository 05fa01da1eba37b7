"""One lab over two hosts, each a network namespace with an Open vSwitch that is there before the lab is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ovsfw.errors import SwitchError
from ovsfw.lab import netns
from ovsfw.lab.demo import POLICY
from ovsfw.lab.host import TUNNEL
from ovsfw.lab.machines import BRIDGE
from ovsfw.lab.vswitch import PrivateSwitch

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
ROOT = Path(__file__).parents[2]
ADDRESSES = ("192.168.56.11", "192.168.56.12")
MACHINES = ("lb,web1,bastion,monitor,outside", "web2,app,db,fresh,router")
# In userspace the ends of a tunnel are on a bridge of Open vSwitch itself.
UNDERLAY = "br-phy"
ASK = """
import socket
agent = socket.create_connection(("192.168.56.11", 6655), source_address=(%r, 0))
try:
    agent.sendall(b"switch\\n")
    print(len(agent.recv(100)))
except ConnectionResetError:
    print(0)
"""


class Host:
    """A namespace, its Open vSwitch, and the lab's share there."""

    def __init__(self, directory: Path, number: int) -> None:
        self.name = f"h{number + 1}-{os.getpid()}"
        self.address, self.peer = ADDRESSES[number], ADDRESSES[1 - number]
        self.switch = PrivateSwitch(directory / f"ovs{number}", self.name)
        self.lab = ["--name", self.name, "--directory", str(directory / f"lab{number}")]

    def start(self) -> None:
        self.switch.start()
        for bridge in (UNDERLAY, BRIDGE):
            self.switch.add_bridge(bridge)
        self.switch.vsctl("add-port", UNDERLAY, "eth0")
        self.switch.ofctl("add-flow", UNDERLAY, "actions=NORMAL")
        for command in (["address", "add", f"{self.address}/24", "dev", UNDERLAY], ["link", "set", UNDERLAY, "up"]):
            netns.inside(self.name, "ip", *command)

    def ovsfw(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net=/run/netns/{self.name}", sys.executable, "-m", "ovsfw", *words]
        environment = self.switch.environment | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    def up(self, machines: str) -> subprocess.CompletedProcess[str]:
        ends = ["--host", self.address, "--peer", self.peer]
        return self.ovsfw("lab", "up", *self.lab, *ends, "--machines", machines)

    def ports(self) -> list[str]:
        return self.switch.vsctl("list-ports", BRIDGE).split()

    def matrix(self) -> Any:
        done = self.ovsfw("lab", "matrix", *self.lab, "--format", "json")
        assert done.stderr == ""
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    directory = Path(tempfile.mkdtemp(prefix="ovsfw-"))
    found = [Host(directory, number) for number in (0, 1)]
    try:
        netns.batch(f"netns add {host.name}" for host in found)
        one, other = (host.name for host in found)
        netns.batch([f"link add name eth0 up type veth peer name eth0 netns {other}"], one)
        netns.inside(other, "ip", "link", "set", "eth0", "up")
        for host in found:
            host.start()
        yield found
    finally:
        for host in found:
            host.ovsfw("lab", "down", *host.lab)
            host.switch.stop()
        netns.remove([host.name for host in found])
        shutil.rmtree(directory)


def test_every_machine_of_both_hosts_gets_what_the_policy_says(hosts: list[Host]) -> None:
    for host, machines in zip(hosts, MACHINES, strict=True):
        assert host.up(machines).stderr == ""
        assert sorted(host.ports()) == sorted([TUNNEL, *machines.split(",")])
        done = host.ovsfw("apply", "--policy", str(POLICY))
        assert done.returncode == 0, done.stderr

    for host in hosts:
        found = host.matrix()
        assert [probe for probe in found["results"] if probe["problems"]] == []
    # On each side of the tunnel another Open vSwitch has named the rule.
    across = [
        probe for probe in found["results"] if (probe["from"], probe["to"]) == ("web1", "app") and probe["passed"]
    ]
    assert [probe["admitted_by"] for probe in across] == [
        {"egress": "open-egress/egress-ipv4-any", "ingress": "app/ingress-ipv4-tcp-9000-from-web"}
    ]


def test_a_filter_that_is_gone_on_one_host_is_seen_from_the_other(hosts: list[Host]) -> None:
    hosts[1].switch.ofctl("del-flows", BRIDGE)
    hosts[1].switch.ofctl("add-flow", BRIDGE, "actions=NORMAL")
    try:
        found = hosts[0].matrix()
    finally:
        hosts[1].ovsfw("apply", "--policy", str(POLICY))
    problems = {probe["to"] for probe in found["results"] if probe["problems"] and probe["from"] == "web1"}
    assert {"db", "fresh"} <= problems


def test_frames_are_forged_where_the_outside_is(hosts: list[Host]) -> None:
    done = hosts[0].ovsfw("lab", "selftest", *hosts[0].lab)
    assert done.returncode == 0, done.stdout
    done = hosts[1].ovsfw("lab", "selftest", *hosts[1].lab)
    assert done.stderr == "ovsfw: the selftest needs the outside, which is on the other host: run it there\n"


def test_the_switch_of_the_host_is_entered_without_a_namespace(hosts: list[Host]) -> None:
    done = hosts[0].ovsfw("lab", "exec", *hosts[0].lab, "switch", "ovs-vsctl", "list-ports", BRIDGE)
    assert done.stdout.split() == hosts[0].ports()


def test_only_the_two_hosts_may_ask_the_agents(hosts: list[Host]) -> None:
    def answered(source: str) -> int:
        """Bytes; who hangs up before the question is read resets the connection."""
        return int(netns.inside(hosts[1].name, sys.executable, "-c", ASK % source))

    netns.inside(hosts[1].name, "ip", "address", "add", "192.168.56.99/24", "dev", UNDERLAY)
    assert answered("192.168.56.99") == 0
    assert answered("192.168.56.12") > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--host", "192.168.56.11"], "needs all of --host, --peer and --machines"),
        (["--host", "here", "--peer", "192.168.56.12", "--machines", "lb"], "does not appear to be an IPv4 or IPv6"),
        (["--host", "10.0.0.1", "--peer", "10.0.0.2", "--machines", "lb,printer"], "no machine 'printer'"),
        (["--host", "10.0.0.1", "--peer", "10.0.0.2", "--machines", "lb"], "br-int has ports of others"),
    ],
)
def test_what_does_not_fit_is_refused(hosts: list[Host], options: list[str], complaint: str, tmp_path: Path) -> None:
    before = hosts[0].ports()
    done = hosts[0].ovsfw("lab", "up", "--name", "another", "--directory", str(tmp_path / "another"), *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert hosts[0].ports() == before


def test_down_leaves_the_bridge_as_it_was(hosts: list[Host]) -> None:
    for host in hosts:
        assert host.ovsfw("lab", "down", *host.lab).stdout.endswith("is down\n")
        assert host.ports() == []
        assert netns.names(f"ovsfw-{host.name}.") == []
        with pytest.raises(SwitchError):
            netns.inside(
                host.name, sys.executable, "-c", f"import socket; socket.create_connection(('{host.address}', 6655))"
            )
