"""The data path: two machines through our pipeline, beside the smallest conntrack pipeline and NORMAL alone."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.document import parse
from ovsfw.reconciler import Change, carry_out, change_between, read
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl
from tests.benchmarks.world import BRIDGE, UPLINK, Row

MACHINES = (1, 2)
PORT = 5201
SECONDS = 3
LEAST_THROUGHPUT = 0.95
MOST_MEGAFLOWS = 10
_POLICY = {
    "security_groups": [
        {
            "id": "all",
            "rules": [
                {"direction": "egress", "ethertype": "IPv4"},
                {
                    "direction": "ingress",
                    "protocol": "tcp",
                    "remote_group_id": "all",
                    "port_range_min": 5000,
                    "port_range_max": 8999,
                },
                {"direction": "ingress", "protocol": "udp", "remote_group_id": "all"},
                {"direction": "ingress", "protocol": "icmp", "remote_group_id": "all"},
            ],
        }
    ],
    "ports": [
        {
            "id": f"local-{number}",
            "mac_address": f"52:54:00:00:00:0{number}",
            "fixed_ips": [{"ip_address": f"10.0.0.{number}"}],
            "security_groups": ["all"],
        }
        for number in MACHINES
    ],
}
# The least that can be asked of a stateful filter: ask conntrack, let established through, commit what is new.
_SMALLEST = """
table=0,arp actions=NORMAL
table=0,ip actions=ct(zone=1,table=1)
table=1,ip,ct_state=+est+trk actions=NORMAL
table=1,ip,ct_state=+new+trk actions=ct(commit,zone=1),NORMAL
"""
_NORMAL = "actions=NORMAL\n"
_MACHINE = """
set -e
ip address add "$1" dev eth0
ip link set eth0 up
ip link set lo up
ethtool -K eth0 tx off > /dev/null
"""


async def rows(switch: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    """Throughput and packet rate as ratios; megaflows and masks for many connections."""
    with _machines(switch):
        measured: dict[str, dict[str, list[float]]] = {}
        for _ in range(times):
            for name in ("ovsfw", "smallest", "normal"):
                await _program(switch, name)
                for kind, value in _traffic(switch).items():
                    measured.setdefault(kind, {}).setdefault(name, []).append(value)
        for kind, by_name in measured.items():
            ours, least, plain = (by_name[name] for name in ("ovsfw", "smallest", "normal"))
            ratio = statistics.median(one / other for one, other in zip(ours, least, strict=True))
            to_normal = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
            yield Row(
                f"{kind} between two machines, against the smallest ct pipeline",
                f">= {LEAST_THROUGHPUT}",
                f"{ratio:.2f} (against NORMAL alone: {to_normal:.2f})",
                ratio >= LEAST_THROUGHPUT,
            )
        await _program(switch, "ovsfw")
        for connections in (1000, 10000):
            _connect(switch, connections)
            megaflows, masks = await _megaflows(switch)
            yield Row(
                f"megaflows for {connections:,} TCP connections between two machines (masks)",
                f"<= {MOST_MEGAFLOWS}",
                f"{megaflows} ({masks})",
                megaflows <= MOST_MEGAFLOWS,
            )
        megaflows, masks = await _scan(switch)
        yield Row("a scan of 10,000 TCP ports that nothing allows: megaflows (masks)", "", f"{megaflows} ({masks})")


@contextmanager
def _machines(switch: PrivateSwitch) -> Iterator[None]:
    """Two network namespaces on the bridge."""
    names = [f"{switch.netns}.{number}" for number in MACHINES]
    try:
        switch.add_bridge(BRIDGE)
        for number, name in zip(MACHINES, names, strict=True):
            mac = f"52:54:00:00:00:0{number}"
            link = f"link add name vm{number} up type veth peer name eth0 address {mac} netns {name}"
            netns.batch([f"netns add {name}"])
            netns.batch([link], switch.netns)
            netns.inside(name, "sh", "-c", _MACHINE, "sh", f"10.0.0.{number}/24")
            switch.vsctl(
                "add-port", BRIDGE, f"vm{number}",
                "--", "set", "interface", f"vm{number}", f"ofport_request={number}",
            )  # fmt: skip
        yield
    finally:
        netns.remove(names)
        switch.vsctl("--if-exists", "del-br", BRIDGE)


async def _program(switch: PrivateSwitch, name: str) -> None:
    """Make the bridge hold one of the three pipelines, and forget everything that was."""
    switch.ofctl("del-flows", BRIDGE)
    if name == "ovsfw":
        await _ours(switch)
    else:
        switch.ofctl("add-flows", BRIDGE, "-", stdin=_SMALLEST if name == "smallest" else _NORMAL)
        # Ours has taken the ports out of flooding, which these two need until they have learned.
        for number in MACHINES:
            switch.run("ovs-ofctl", "-O", "OpenFlow10", "mod-port", BRIDGE, f"vm{number}", "flood")
    for command in ("revalidator/purge", "dpctl/flush-conntrack"):
        switch.appctl(command)


async def _ours(switch: PrivateSwitch) -> Change:
    here = Bindings(tuple(Binding(f"local-{number}", number) for number in MACHINES), (Uplink(UPLINK),))
    program = compile_policy(parse(json.dumps(_POLICY), "two machines"), here)
    channel = Channel()
    await channel.connect(switch.rundir / f"{BRIDGE}.mgmt")
    try:
        installed = await read(channel)
        change = change_between(installed.ours, installed.settings, program)
        await carry_out(channel, change)
        return change
    finally:
        channel.close()


def _traffic(switch: PrivateSwitch) -> dict[str, float]:
    """One run of each kind."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", f"{switch.netns}.2", "iperf3", "-s", "-p", str(PORT)], stdout=subprocess.DEVNULL
    )
    try:
        netns.inside(f"{switch.netns}.1", "ping", "-q", "-c", "3", "-i", "0.2", "10.0.0.2")
        throughput = _iperf(switch, "-t", str(SECONDS))["end"]["sum_received"]["bits_per_second"]
        small = _iperf(switch, "-t", str(SECONDS), "-u", "-b", "0", "-l", "64")["end"]["sum"]
        packets = small["packets"] * (1 - small["lost_percent"] / 100) / SECONDS
    finally:
        server.terminate()
        server.wait()
    return {"TCP throughput": throughput, "rate of 64-byte UDP packets": packets}


def _iperf(switch: PrivateSwitch, *options: str) -> dict[str, dict[str, dict[str, float]]]:
    command = ("iperf3", "-J", "-c", "10.0.0.2", "-p", str(PORT), *options)
    found: dict[str, dict[str, dict[str, float]]] = json.loads(netns.inside(f"{switch.netns}.1", *command))
    return found


_SERVER = """
import socket, sys
server = socket.create_server(("10.0.0.2", 8000), backlog=4096)
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
_CLIENT = """
import socket, sys
for _ in range(int(sys.argv[1])):
    socket.create_connection(("10.0.0.2", 8000)).close()
"""
_SCANNER = """
import socket
for port in range(10000, 20000):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("10.0.0.2", port))
    sock.close()
"""


def _connect(switch: PrivateSwitch, count: int) -> None:
    """So many TCP connections, one after the other."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", f"{switch.netns}.2", "python3", "-c", _SERVER], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        netns.inside(f"{switch.netns}.1", "python3", "-c", _CLIENT, str(count))
    finally:
        server.terminate()
        server.wait()


async def _scan(switch: PrivateSwitch) -> tuple[int, int]:
    switch.appctl("revalidator/purge")
    netns.inside(f"{switch.netns}.1", "python3", "-c", _SCANNER)
    return await _megaflows(switch)


async def _megaflows(switch: PrivateSwitch) -> tuple[int, int]:
    """Of IP, as the datapath has them now."""
    await asyncio.sleep(0.1)
    dump = await unixctl(control_socket(rundir=switch.rundir), "dpctl/dump-flows", "-m")
    lines = [line for line in dump.splitlines() if "eth_type(0x0800)" in line]
    masks = {re.sub(r"(?<=[=(])[0-9a-fx.:]+(?=/|[,)])", "", line.split(" packets:")[0]) for line in lines}
    return len(lines), len(masks)
