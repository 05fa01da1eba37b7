"""The machines of a lab: network namespaces with an agent, and the links that join them to a bridge."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ovsfw.lab import netns
from ovsfw.lab.plan import Machine

BRIDGE = "br-int"
_AGENT = Path(__file__).with_name("agent.py")
# In a machine: `ip -batch` reads the set-up, then the agent starts and goes to the background.
# Addresses are usable at once (no duplicate address detection), there is no router, and ping needs no privilege.
# The switch reads packets as they are: the machine must compute their checksums itself.
_MACHINE_SETUP = """
set -e
conf=/proc/sys/net/ipv6/conf
for setting in disable_ipv6 accept_dad accept_ra router_solicitations; do echo 0 > $conf/eth0/$setting; done
echo 0 > $conf/lo/disable_ipv6
echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
ethtool -K eth0 tx off > /dev/null
ip -batch -
exec "$@"
"""


class Place(NamedTuple):
    """Which lab: its name, and its directory, which is also the run directory of a private Open vSwitch."""

    name: str
    directory: Path


def prefix(name: str) -> str:
    """Of all namespaces of a lab.  No lab's name has a dot, so no lab's prefix is the beginning of another's."""
    return f"ovsfw-{name}."


def namespace(place: Place, machine: str) -> str:
    """The network namespace of a machine, or of the switch."""
    return f"{prefix(place.name)}{machine}"


def agent_socket(place: Place, machine: str) -> Path:
    """Where the agent of a machine listens; reachable from every namespace."""
    return place.directory / f"{machine}.agent"


def start(place: Place, machine: Machine) -> None:
    """Set up a machine whose device is there, and start its agent.  Raises SwitchError."""
    own = [address.split("/")[0] for address in machine.addresses]
    agent = [sys.executable, "-I", str(_AGENT), str(agent_socket(place, machine.name)), machine.name, *own]
    setup = "".join(f"{command}\n" for command in _setup(machine))
    netns.inside(namespace(place, machine.name), "sh", "-c", _MACHINE_SETUP, "sh", *agent, stdin=setup)


def _setup(machine: Machine) -> Iterator[str]:
    """The commands of ip(8) inside a machine."""
    yield "link set lo up"
    for address in machine.addresses:
        yield f"address add {address} dev eth0{' nodad' if ':' in address else ''}"
    yield "link set eth0 up"
    for route in machine.routes:
        yield f"route add {route} dev eth0"
    for gateway in machine.gateways:
        yield f"route add default via {gateway}"


def plug(machines: Iterable[Machine]) -> Iterator[str]:
    """One transaction: a switch port appears together with its iface-id, so that it is never taken for an uplink."""
    for machine in machines:
        yield from ("--", "add-port", BRIDGE, machine.name)
        if machine.vlan:
            yield f"tag={machine.vlan}"
        if machine.port_id is not None:
            quoted = json.dumps(machine.port_id)
            yield from ("--", "set", "Interface", machine.name, f"external_ids:iface-id={quoted}")
