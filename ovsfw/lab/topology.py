"""A lab: machines as network namespaces on an Open vSwitch of their own.  How things are named is said in plan.py.

A lab belongs to its directory and its name, not to the process that made it.  The directory is claimed before anything
else is made and is removed last, so whatever interrupts `up`, `down` finds everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ovsfw.errors import ConfigError
from ovsfw.lab import netns
from ovsfw.lab.plan import Machine, Party, Plan, make_plan
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.model import Policy

BRIDGE = "br-int"
DEFAULT_NAME = "lab"
_STATE = "lab.json"
_AGENT = Path(__file__).with_name("agent.py")
_MAX_SOCKET_PATH = 100  # sun_path has 108 bytes (unix(7))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
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
# The switch's ends of the veths must stay silent.
_SWITCH_SETUP = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"


class Place(NamedTuple):
    """Which lab: its name, and its directory, which is also the run directory of its Open vSwitch."""

    name: str
    directory: Path


class Lab(NamedTuple):
    """A lab that is up.  `policy_file` is what it was made from, "" when that was no file."""

    place: Place
    plan: Plan
    policy_file: str

    @property
    def switch(self) -> PrivateSwitch:
        """Its Open vSwitch."""
        return _switch(self.place)

    def agent_socket(self, machine: str) -> Path:
        """Where the agent of a machine listens; reachable from every namespace."""
        return _agent_socket(self.place, machine)


def make_place(name: str = DEFAULT_NAME, directory: str | None = None) -> Place:
    """Find the place of a lab.  Raises ConfigError for a bad name or a directory whose path is too long."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"lab name {name!r}: use up to 32 letters, digits, dashes and underscores")
    path = Path(directory or f"/run/ovsfw-{name}").absolute()
    if len(os.fsencode(_agent_socket(Place(name, path), "x" * 15))) > _MAX_SOCKET_PATH:
        raise ConfigError(f"{path}: too long a path for sockets; choose a shorter --directory")
    return Place(name, path)


def up(policy: Policy, place: Place, policy_file: str = "") -> Lab:
    """Build a lab for a policy; its switch has no flows yet and so forwards nothing.

    Raises ConfigError when the lab is up already or the policy does not fit, SwitchError when something cannot be made;
    whatever is raised (KeyboardInterrupt too), nothing is left behind.
    """
    if os.geteuid() != 0:
        raise ConfigError("a lab needs network namespaces: run this as root")
    plan = make_plan(policy)
    _refuse_if_taken(place)
    try:
        _claim(place, plan, policy_file)
        _build(place, plan)
    except FileExistsError:  # another process was faster; what is there is its own
        raise ConfigError(_taken(place)) from None
    except BaseException:
        down(place)
        raise
    return Lab(place, plan, policy_file)


def down(place: Place) -> bool:
    """Remove a lab, or what is left of one; whether there was anything."""
    state = _read_state(place)
    doomed = netns.names(_prefix(state.get("name", place.name)))
    netns.remove(doomed)
    if state:
        shutil.rmtree(place.directory)
    with contextlib.suppress(OSError):  # an empty one: `up` was interrupted before it wrote the state
        place.directory.rmdir()
    return bool(doomed or state)


def find(place: Place) -> Lab:
    """The lab that is up at a place.  Raises ConfigError when there is none."""
    state = _read_state(place)
    if not state or "plan" not in state:
        raise ConfigError(f"no lab in {place.directory}: start one with `ovsfw lab up`")
    place = Place(state["name"], place.directory)
    if not _switch(place).is_running():
        raise ConfigError(f"the lab in {place.directory} is damaged: `ovsfw lab down` removes it")
    return Lab(place, _read_plan(state["plan"]), state["policy_file"])


def namespace(place: Place, machine: str) -> str:
    """The network namespace of a machine, or of the switch."""
    return f"{_prefix(place.name)}{machine}"


def _prefix(name: str) -> str:
    """No lab's name has a dot, so no lab's prefix is the beginning of another's."""
    return f"ovsfw-{name}."


def _switch(place: Place) -> PrivateSwitch:
    return PrivateSwitch(place.directory, namespace(place, "switch"))


def _agent_socket(place: Place, machine: str) -> Path:
    return place.directory / f"{machine}.agent"


def _refuse_if_taken(place: Place) -> None:
    """Raises ConfigError when the lab is there already."""
    if (place.directory / _STATE).exists() or netns.names(_prefix(place.name)):
        raise ConfigError(_taken(place))
    if place.directory.exists() and any(place.directory.iterdir()):
        raise ConfigError(f"{place.directory}: not empty; a lab needs a directory of its own")


def _taken(place: Place) -> str:
    remedy = f"ovsfw lab down --name {place.name} --directory {place.directory}"
    return f"lab {place.name!r} is up already, or was left behind; take it down first: {remedy}"


def _claim(place: Place, plan: Plan, policy_file: str) -> None:
    """Write the state before anything is made.  Raises FileExistsError when another process did."""
    place.directory.mkdir(parents=True, exist_ok=True)
    state = {"name": place.name, "policy_file": policy_file, "plan": asdict(plan)}
    with (place.directory / _STATE).open("x") as file:
        json.dump(state, file)


def _read_state(place: Place) -> dict[str, Any]:
    """What the directory says about its lab; empty when there is none, only a name when the writer was interrupted."""
    try:
        state: dict[str, Any] = json.loads((place.directory / _STATE).read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"name": place.name}
    return state


def _read_plan(plan: dict[str, Any]) -> Plan:
    def frozen(values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    return Plan(
        machines=tuple(Machine(**frozen(machine)) for machine in plan["machines"]),
        parties=tuple(Party(**frozen(party)) for party in plan["parties"]),
    )


def _build(place: Place, plan: Plan) -> None:
    """Namespaces and veths first, in one go; then the switch and all machines at the same time; then plug in."""
    switch = _switch(place)
    spaces = ["switch", *(machine.name for machine in plan.machines)]
    netns.batch(f"netns add {namespace(place, name)}" for name in spaces)
    netns.inside(switch.netns, "sh", "-c", _SWITCH_SETUP)
    netns.batch(_link(place, machine) for machine in plan.machines)
    _at_the_same_time(partial(_start_switch, switch), *(partial(_start_machine, place, m) for m in plan.machines))
    switch.vsctl(*_plug(plan))


def _at_the_same_time(*jobs: Callable[[], None]) -> None:
    """Do all jobs; when this returns or raises, KeyboardInterrupt too, none is running any more."""
    pool = ThreadPoolExecutor()
    try:
        for running in [pool.submit(job) for job in jobs]:
            running.result()
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            pool.shutdown()
            raise


def _start_switch(switch: PrivateSwitch) -> None:
    switch.start()
    switch.add_bridge(BRIDGE)


def _link(place: Place, machine: Machine) -> str:
    switch, own = namespace(place, "switch"), namespace(place, machine.name)
    return f"link add name {machine.name} netns {switch} up type veth peer name eth0 address {machine.mac} netns {own}"


def _plug(plan: Plan) -> Iterator[str]:
    """One transaction: a switch port appears together with its iface-id, so that it is never taken for an uplink."""
    for machine in plan.machines:
        yield from ("--", "add-port", BRIDGE, machine.name)
        if machine.vlan:
            yield f"tag={machine.vlan}"
        if machine.port_id is not None:
            quoted = json.dumps(machine.port_id)
            yield from ("--", "set", "Interface", machine.name, f"external_ids:iface-id={quoted}")


def _start_machine(place: Place, machine: Machine) -> None:
    own = [address.split("/")[0] for address in machine.addresses]
    agent = [sys.executable, "-I", str(_AGENT), str(_agent_socket(place, machine.name)), machine.name, *own]
    setup = "".join(f"{command}\n" for command in _setup(machine))
    netns.inside(namespace(place, machine.name), "sh", "-c", _MACHINE_SETUP, "sh", *agent, stdin=setup)


def _setup(machine: Machine) -> Iterator[str]:
    """The commands of ip(8) inside a machine."""
    yield "link set lo up"
    for address in machine.addresses:
        yield f"address add {address} dev eth0{' nodad' if ':' in address else ''}"
    yield "link set eth0 up"
    for prefix in machine.routes:
        yield f"route add {prefix} dev eth0"
    for gateway in machine.gateways:
        yield f"route add default via {gateway}"
