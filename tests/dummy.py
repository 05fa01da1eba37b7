"""A real ovs-vswitchd without privileges: its dummy ports take packets from a test and write what they send to files.

Everything between is the real thing: classifier, userspace datapath, conntrack.  `send` returns when the packet has
been dealt with.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from ovsfw.compiler import Bindings, Program
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.reconciler import Change, carry_out, change_between, read
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import control_socket

BRIDGE = "br-int"
# ovs-vswitchd answers at most ten commands of a connection before it goes round its main loop again, where ports are
# polled and changed settings take effect (run_connection() in lib/unixctl.c).  A port then takes in one packet, and a
# hundred wait for it at the most (netdev_dummy_rxq_recv() and NETDEV_DUMMY_MAX_QUEUE in lib/netdev-dummy.c).
_COMMANDS_PER_TURN = 10
_PACKETS_AT_ONCE = 50
_PCAP_HEADER = 24
_RECORD = struct.Struct("=IIII")


class DummySwitch:
    """A bridge with dummy ports, by OpenFlow number."""

    DATAPATH = "dummy"

    def __init__(self, switch: PrivateSwitch, ofports: Iterable[int], bridge: str = BRIDGE) -> None:
        self.switch, self.bridge = switch, bridge
        self._read: dict[int, int] = {}
        self._tags: dict[int, int] = {}
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(str(control_socket(rundir=switch.rundir)))
        commands = ["add-br", bridge, "--", "set", "bridge", bridge, f"datapath_type={self.DATAPATH}"]
        commands += ["fail_mode=secure", "protocols=OpenFlow10,OpenFlow14"]
        for ofport in ofports:
            commands += ["--", "add-port", bridge, f"p{ofport}", "--", "set", "interface", f"p{ofport}"]
            commands += [f"ofport_request={ofport}", *self._plug(ofport)]
        switch.vsctl(*commands)

    def _plug(self, ofport: int) -> list[str]:
        """Make a port ready; the settings of its Interface in OVSDB."""
        self._read[ofport] = _PCAP_HEADER
        return ["type=dummy", f"options:tx_pcap={self._pcap(ofport)}"]

    def _pcap(self, ofport: int) -> Path:
        return self.switch.rundir / f"p{ofport}.pcap"

    def call(self, command: str, *args: str, turns: int = 1) -> str:
        """One unixctl command, and what it sets off in so many turns of the main loop."""
        return self._converse((command, args), *[("version", ())] * _COMMANDS_PER_TURN * turns)[0]

    def _converse(self, *commands: tuple[str, tuple[str, ...]]) -> list[str]:
        """Some commands at once, over a connection that stays open: thousands are needed."""
        requests = ({"method": command, "params": args, "id": 0} for command, args in commands)
        self._control.sendall("".join(map(json.dumps, requests)).encode())
        answers: list[str] = []
        text = ""
        while len(answers) < len(commands):
            text += self._control.recv(1 << 16).decode()
            while text:
                try:
                    reply, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                assert reply["error"] is None, reply["error"]
                answers.append(str(reply["result"]))
                text = text[end:]
        return answers

    def program(self, program: Program) -> Change:
        """Make the switch hold a program; forget all connections."""
        change = self.keep_connections(program)
        self.forget()
        return change

    def keep_connections(self, program: Program) -> Change:
        """Make the switch hold a program, and let connections be."""

        async def install() -> Change:
            channel = Channel()
            await channel.connect(self.switch.rundir / f"{self.bridge}.mgmt")
            try:
                installed = await read(channel)
                change = change_between(installed.ours, installed.settings, program)
                await carry_out(channel, change)
                return change
            finally:
                channel.close()

        change = asyncio.run(install())
        self.call("revalidator/purge")
        return change

    def tag(self, ofports: Iterable[int], vlan: int) -> None:
        """Put some ports into a VLAN, 0 for none."""
        self._tag(dict.fromkeys(ofports, vlan))

    def wire(self, bindings: Bindings) -> None:
        """Put the port of each endpoint into its VLAN."""
        self._tag({bound.ofport: bound.vlan for bound in bindings.endpoints})

    def _tag(self, vlans: Mapping[int, int]) -> None:
        """`vlans` by ofport."""
        moved = {ofport: vlan for ofport, vlan in vlans.items() if self._tags.get(ofport, 0) != vlan}
        if moved:
            commands = (("--", "set", "port", f"p{ofport}", f"tag={vlan or '[]'}") for ofport, vlan in moved.items())
            self.switch.vsctl(*itertools.chain.from_iterable(commands))
            self._tags.update(moved)

    def forget(self) -> None:
        """Forget all connections and learned MAC addresses, and let no cached decision outlive its flows."""
        self.call("revalidator/purge")
        self.call("dpctl/flush-conntrack")
        self.call("fdb/flush", self.bridge)

    def send(self, ofport: int, *packets: bytes) -> dict[int, list[bytes]]:
        """Let packets come in by a port; what came out, by port."""
        self.receive(ofport, *packets)
        return self.sent()

    def receive(self, ofport: int, *packets: bytes) -> None:
        """Let packets come in by a port, each of which has been dealt with at the end."""
        for at in range(0, len(packets), _PACKETS_AT_ONCE):
            chunk = [packet.hex() for packet in packets[at : at + _PACKETS_AT_ONCE]]
            self.call("netdev-dummy/receive", f"p{ofport}", *chunk, turns=len(chunk))

    def received(self, ofport: int) -> int:
        """The packets that came in by a port so far; one that is busy takes in less than it is given."""
        found = re.search(r"rx pkts=(\d+)", self.switch.ofctl("dump-ports", self.bridge, str(ofport)))
        assert found
        return int(found[1])

    def sent(self) -> dict[int, list[bytes]]:
        """What came out since it was looked at last, by port."""
        return {port: sent for port in self._read if (sent := self._sent(port))}

    def _sent(self, ofport: int) -> list[bytes]:
        data = self._pcap(ofport).read_bytes()
        at = self._read[ofport]
        found = []
        while at < len(data):
            _, _, size, _ = _RECORD.unpack_from(data, at)
            found.append(data[at + 16 : at + 16 + size])
            at += 16 + size
        self._read[ofport] = at
        return found
