"""A lab over two hosts: on each a part of its machines, on the host's own Open vSwitch, with VXLAN between the bridges.

`Share` says which part.  Both hosts know the plan of the whole, and ask the agents of the other one through its relay.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ovsfw.errors import ConfigError
from ovsfw.lab import machines, netns
from ovsfw.lab.machines import BRIDGE, Place, namespace
from ovsfw.lab.plan import Machine, Plan
from ovsfw.lab.tools import Switch

RELAY_PORT = 6655
TUNNEL = "vxlan-peer"
MTU = 1450  # of the machines: VXLAN takes 50 bytes of the 1500 between the hosts
_RELAY = Path(__file__).with_name("relay.py")
_OURS = "ovsfw-lab"  # an external id of the bridge that a lab has made
# The bridge's end of a veth must stay silent.
_LINK = """
set -e
ip link add name "$1" mtu "$4" type veth peer name eth0 address "$2" mtu "$4" netns "$3"
echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6"
ip link set "$1" up
"""


class Share(NamedTuple):
    """A host's part of a lab: where it is reached, where the other host is, and the names of the machines here."""

    address: str
    peer: str
    machines: tuple[str, ...]

    def chosen(self, plan: Plan) -> tuple[Machine, ...]:
        """The machines here."""
        return tuple(machine for machine in plan.machines if machine.name in self.machines)


def make_share(address: str, peer: str, names: Sequence[str], plan: Plan) -> Share:
    """Raises ConfigError for what is no address, and for a machine that the plan does not have."""
    try:
        {ipaddress.ip_address(text) for text in (address, peer)}
    except ValueError as error:
        raise ConfigError(f"{error}: --host and --peer are the addresses of the two hosts") from None
    known = [machine.name for machine in plan.machines]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no machine {unknown[0]!r} in this policy; there are: {' '.join(known)}")
    return Share(address, peer, tuple(names))


def refuse_foreign_bridge(switch: Switch) -> None:
    """Raises ConfigError when the bridge is there and has ports: a lab does not meddle with what others use."""
    if BRIDGE in switch.vsctl("list-br").split() and (ports := switch.vsctl("list-ports", BRIDGE).split()):
        raise ConfigError(f"{BRIDGE} has ports of others ({', '.join(ports[:3])}): a lab needs it for itself")


def build(place: Place, plan: Plan, share: Share, switch: Switch) -> None:
    """Bridge, tunnel, machines, relay.  Raises SwitchError."""
    if BRIDGE not in switch.vsctl("list-br").split():
        made = ("set", "Bridge", BRIDGE, "fail_mode=secure", f"external_ids:{_OURS}=made")
        switch.vsctl("add-br", BRIDGE, "--", *made)
    options = (f"options:remote_ip={share.peer}", f"options:local_ip={share.address}", "options:key=100")
    switch.vsctl("add-port", BRIDGE, TUNNEL, "--", "set", "Interface", TUNNEL, "type=vxlan", *options)
    chosen = share.chosen(plan)
    netns.batch(f"netns add {namespace(place, machine.name)}" for machine in chosen)
    for machine in chosen:
        space = namespace(place, machine.name)
        netns.run(["sh", "-c", _LINK, "sh", machine.name, machine.mac, space, str(MTU)])
        machines.start(place, machine)
    switch.vsctl(*machines.plug(chosen))
    relay = [share.address, str(RELAY_PORT), share.peer, str(place.directory)]
    netns.run([sys.executable, "-I", str(_RELAY), *relay])


def remove(place: Place, share: Share, switch: Switch) -> None:
    """Take away what `build` has made; what is not there is fine."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((place.directory / "relay.pid").read_text())
        if os.fsencode(place.directory) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    for name in share.machines:  # both ends at once: those of a namespace that goes follow it some time later
        command = ("ip", "-n", namespace(place, name), "link", "delete", "eth0")
        subprocess.run(command, capture_output=True, check=False)
    if BRIDGE not in switch.vsctl("list-br").split():
        return
    if switch.vsctl("--if-exists", "get", "Bridge", BRIDGE, f"external_ids:{_OURS}").strip() == "made":
        switch.vsctl("--if-exists", "del-br", BRIDGE)
        return
    for name in (TUNNEL, *share.machines):
        switch.vsctl("--if-exists", "del-port", BRIDGE, name)
