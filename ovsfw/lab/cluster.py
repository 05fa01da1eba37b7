"""A cluster on one machine: three database servers in RAFT, and two hosts with two machines each.

Everything lives in network namespaces `ovsfw-NAME.*` and in one directory.  The servers have one namespace, which every
host reaches over a cable of its own.  Another cable joins the hosts, and VXLAN over it their bridges.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ovsfw.errors import ConfigError, StoreError, SwitchError
from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.store import setup
from ovsfw.store.client import DATABASE, Remote, connected
from ovsfw.store.server import Server

BRIDGE = "br-int"
PATIENCE = 60.0
_SERVERS = 3
_FIRST_PORT = 6644  # of RAFT
_FIRST_LISTENER = 6651  # for hosts
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,15}")


class Machine(NamedTuple):
    """A namespace with one device, eth0; its name is its port's id."""

    name: str
    host: str
    mac: str
    address: str


MACHINES = (
    Machine("client", "host1", "52:54:00:00:00:01", "10.9.0.1"),
    Machine("guest", "host1", "52:54:00:00:00:04", "10.9.0.4"),
    Machine("web", "host2", "52:54:00:00:00:02", "10.9.0.2"),
    Machine("vault", "host2", "52:54:00:00:00:03", "10.9.0.3"),
)
HOSTS = ("host1", "host2")
# The first address is that of the other end: the servers, or the other host.
_TO_SERVERS = {"host1": ("10.8.1.1", "10.8.1.2"), "host2": ("10.8.2.1", "10.8.2.2")}
_UNDERLAY = {"host1": ("10.8.0.2", "10.8.0.1"), "host2": ("10.8.0.1", "10.8.0.2")}
_UNDERLAY_MTU = 1600  # 1500 and what VXLAN adds


class Cluster:
    """Servers, hosts and machines; its state is the processes in the namespaces."""

    def __init__(self, name: str, directory: Path) -> None:
        """Raises ConfigError for a bad name."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"cluster name {name!r}: use up to 16 small letters, digits and dashes")
        self._prefix = f"ovsfw-{name}."
        self.directory = directory
        self.servers = [Server(directory / f"server{number}") for number in range(1, _SERVERS + 1)]
        self.remote = Remote(tuple(server.address for server in self.servers))
        self.switches = {host: PrivateSwitch(directory / host, self.space(host)) for host in HOSTS}

    def space(self, name: str) -> str:
        """The namespace of a host, a machine, or the servers."""
        return f"{self._prefix}{name}"

    @contextmanager
    def up(self) -> Iterator[None]:
        """Everything runs; afterwards nothing is left, whatever happened."""
        if os.geteuid() != 0:
            raise ConfigError("a cluster needs network namespaces: run this as root")
        if netns.names(self._prefix) or self.directory.exists():
            raise ConfigError(
                f"{self.directory}: a cluster is or was there; remove the directory, or take another name"
            )
        try:
            self.directory.mkdir(parents=True)
            self._start_servers()
            self._start_hosts()
            yield
        finally:
            netns.remove(netns.names(self._prefix))
            shutil.rmtree(self.directory, ignore_errors=True)

    def _start_servers(self) -> None:
        netns.batch([f"netns add {self.space('servers')}"])
        netns.inside(self.space("servers"), "ip", "link", "set", "lo", "up")
        addresses = [f"tcp:127.0.0.1:{_FIRST_PORT + number}" for number in range(_SERVERS)]
        for number, (server, address) in enumerate(zip(self.servers, addresses, strict=True)):
            if number:
                server.join_cluster(address, addresses[:1])
            else:
                server.create_cluster(address)
            self.start_server(server)
            if not number:
                asyncio.run(setup.initialise(Remote((server.address,))))
        for server in self.servers:
            self.wait(lambda server=server: self._is_member(server), f"{server.address} joins")

    def start_server(self, server: Server) -> None:
        """Start one that is down."""
        listener = f"ptcp:{_FIRST_LISTENER + self.servers.index(server)}"
        server.start(("ip", "netns", "exec", self.space("servers")), [listener])

    def remote_of(self, host: str) -> Remote:
        """The servers, as a host reaches them."""
        address = _TO_SERVERS[host][0]
        return Remote(tuple(f"tcp:{address}:{_FIRST_LISTENER + number}" for number in range(_SERVERS)))

    def cut(self, host: str) -> None:
        """Pull the cable between a host and the servers: packets are lost, and no connection is told so."""
        netns.inside(self.space("servers"), "ip", "link", "set", host, "down")

    def mend(self, host: str) -> None:
        """Plug it in again."""
        netns.inside(self.space("servers"), "ip", "link", "set", host, "up")

    def leader(self) -> Server | None:
        """Which server leads at this moment."""
        return next((server for server in self.servers if self._asked(server, "leader")), None)

    def kill(self, server: Server) -> None:
        """Let a server crash."""
        pid = int((server.directory / "ovsdb-server.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        self.wait(lambda: not Path(f"/proc/{pid}").exists(), f"{server.address} ends")

    def _is_member(self, server: Server) -> bool:
        return self._asked(server, "connected")

    def _asked(self, server: Server, column: str) -> bool:
        """A column of what a server says about its database; false when it does not answer."""

        async def ask() -> bool:
            async with connected(Remote((server.address,))) as connection:
                where = [["name", "==", DATABASE]]
                select = {"op": "select", "table": "Database", "where": where, "columns": [column]}
                (answer,) = await connection.call("transact", ["_Server", select])
                return all(row[column] for row in answer["rows"])

        try:
            return asyncio.run(ask())
        except (StoreError, OSError):
            return False

    def wait(self, ready: object, what: str) -> None:
        """Poll.  Raises SwitchError after a minute."""
        deadline = time.monotonic() + PATIENCE
        while not (ready() if callable(ready) else ready):
            if time.monotonic() > deadline:
                raise SwitchError(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.02)

    def _start_hosts(self) -> None:
        for switch in self.switches.values():
            switch.start()
            switch.add_bridge(BRIDGE)
        first, second = (switch.netns for switch in self.switches.values())
        netns.batch([f"link add name underlay up type veth peer name underlay netns {second}"], first)
        for host, switch in self.switches.items():
            self._connect(host, switch)
            self._add_tunnel(host, switch)
        for machine in MACHINES:
            self._start_machine(machine)
        for host, switch in self.switches.items():
            self._start_daemon(host, switch)

    def _connect(self, host: str, switch: PrivateSwitch) -> None:
        """The cable to the servers."""
        servers, (far, near) = self.space("servers"), _TO_SERVERS[host]
        netns.batch([f"link add name servers up type veth peer name {host} netns {servers}"], switch.netns)
        netns.inside(servers, "ip", "address", "add", f"{far}/24", "dev", host)
        netns.inside(servers, "ip", "link", "set", host, "up")
        netns.inside(switch.netns, "ip", "address", "add", f"{near}/24", "dev", "servers")

    def _add_tunnel(self, host: str, switch: PrivateSwitch) -> None:
        """VXLAN; in the userspace datapath its end must be the address of a bridge that the underlay is a port of.

        https://docs.openvswitch.org/en/latest/howto/userspace-tunneling/
        """
        far, near = _UNDERLAY[host]
        netns.inside(switch.netns, "ip", "link", "set", "underlay", "up", "mtu", str(_UNDERLAY_MTU))
        netns.inside(switch.netns, "ethtool", "-K", "underlay", "tx", "off")
        bridge = ("set", "bridge", "br-phy", "datapath_type=netdev")
        switch.vsctl("add-br", "br-phy", "--", *bridge, "--", "add-port", "br-phy", "underlay")
        netns.inside(switch.netns, "ip", "address", "add", f"{near}/24", "dev", "br-phy")
        netns.inside(switch.netns, "ip", "link", "set", "br-phy", "up", "mtu", str(_UNDERLAY_MTU))
        tunnel = ("set", "interface", "vxlan", "type=vxlan", f"options:remote_ip={far}", "options:key=1")
        switch.vsctl("add-port", BRIDGE, "vxlan", "--", *tunnel)

    def _start_machine(self, machine: Machine) -> None:
        switch, own = self.switches[machine.host], self.space(machine.name)
        peer = f"peer name eth0 address {machine.mac} netns {own}"
        netns.batch([f"netns add {own}"])
        netns.batch([f"link add name {machine.name} up type veth {peer}"], switch.netns)
        netns.inside(own, "ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        netns.inside(own, "ip", "link", "set", "eth0", "up")
        netns.inside(own, "ethtool", "-K", "eth0", "tx", "off")
        plug = ("set", "Interface", machine.name, f"external_ids:iface-id={machine.name}")
        switch.vsctl("add-port", BRIDGE, machine.name, "--", *plug)

    def status(self, host: str) -> str:
        """What `ovsfw status` says on a host."""
        command = ["ip", "netns", "exec", self.space(host), sys.executable, "-m", "ovsfw", "status"]
        environment = self.switches[host].environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    def _start_daemon(self, host: str, switch: PrivateSwitch) -> None:
        """It ends with its namespace."""
        words = ["run", "--policy", str(self.remote_of(host)), "--host", host, "--db", switch.db]
        with (switch.rundir / "ovsfw.log").open("ab") as log:
            subprocess.Popen(
                ["ip", "netns", "exec", switch.netns, sys.executable, "-m", "ovsfw", *words],
                env=switch.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, host: str) -> str:
        """What the daemon of a host has said."""
        return (self.switches[host].rundir / "ovsfw.log").read_text()

    def ping(self, receiver: str, sender: str = "client") -> bool:
        """Whether an echo is answered."""
        command = self._ping(sender, receiver, "-c1", "-W1")
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def pinging(self, receiver: str, sender: str = "client") -> Iterator[Path]:
        """Echoes every 50 ms all the time; the file has what ping says."""
        file = self.directory / f"ping-{sender}-{receiver}"
        command = self._ping(sender, receiver, "-i0.05")
        with file.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
            try:
                yield file
            finally:
                time.sleep(0.5)  # the last answer is on its way
                process.send_signal(signal.SIGINT)
                process.wait()

    def _ping(self, sender: str, receiver: str, *options: str) -> list[str]:
        address = next(machine.address for machine in MACHINES if machine.name == receiver)
        return ["ip", "netns", "exec", self.space(sender), "ping", "-n", *options, address]
