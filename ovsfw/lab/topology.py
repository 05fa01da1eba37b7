"""A lab: machines as network namespaces on an Open vSwitch of their own.  How things are named is said in plan.py.

A lab over two hosts (host.py) uses the Open vSwitch of the host instead, and has a part of the machines there.

A lab belongs to its directory and its name, not to the process that made it.  The directory is claimed before anything
else is made and is removed last, so whatever interrupts `up`, `down` finds everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ovsfw.errors import ConfigError
from ovsfw.lab import machines, netns
from ovsfw.lab.host import RELAY_PORT, Share, build, make_share, refuse_foreign_bridge, remove
from ovsfw.lab.machines import BRIDGE, Place, agent_socket, namespace, prefix
from ovsfw.lab.plan import Machine, Party, Plan, make_plan
from ovsfw.lab.tools import Switch
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.model import Policy

DEFAULT_NAME = "lab"
USERSPACE, KERNEL = "netdev", "system"  # datapaths, as Open vSwitch calls them
_STATE = "lab.json"
_MAX_SOCKET_PATH = 100  # sun_path has 108 bytes (unix(7))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
# The switch's ends of the veths must stay silent.
_SWITCH_SETUP = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"


class Lab(NamedTuple):
    """A lab that is up.  `policy_file` is what it was made from, "" when that was no file.

    `share` is what of it is on this host, None when that is all.
    """

    place: Place
    plan: Plan
    policy_file: str
    share: Share | None = None

    @property
    def switch(self) -> PrivateSwitch:
        """The Open vSwitch of a lab that is all here."""
        return _private(self.place)

    @property
    def ovs(self) -> Switch:
        """The Open vSwitch here, also where it is the host's."""
        return Switch() if self.share else self.switch

    @property
    def here(self) -> Plan:
        """The machines that are on this host, and the parties that speak from them."""
        if self.share is None:
            return self.plan
        names = self.share.machines
        parties = tuple(party for party in self.plan.parties if party.machine in names)
        return Plan(self.share.chosen(self.plan), parties)

    def agent(self, machine: str) -> Path | tuple[str, int]:
        """Where the agent of a machine listens: here, or how the other host's relay is reached."""
        if self.share is None or machine in self.share.machines:
            return agent_socket(self.place, machine)
        return self.share.peer, RELAY_PORT


def make_place(name: str = DEFAULT_NAME, directory: str | None = None) -> Place:
    """Find the place of a lab.  Raises ConfigError for a bad name or a directory whose path is too long."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"lab name {name!r}: use up to 32 letters, digits, dashes and underscores")
    path = Path(directory or f"/run/ovsfw-{name}").absolute()
    if len(os.fsencode(agent_socket(Place(name, path), "x" * 15))) > _MAX_SOCKET_PATH:
        raise ConfigError(f"{path}: too long a path for sockets; choose a shorter --directory")
    return Place(name, path)


def up(policy: Policy, place: Place, policy_file: str = "", datapath: str = USERSPACE) -> Lab:
    """Build a lab for a policy; its switch has no flows yet and so forwards nothing.

    Raises ConfigError when the lab is up already or the policy does not fit, SwitchError when something cannot be made;
    whatever is raised (KeyboardInterrupt too), nothing is left behind.
    """
    return _up(Lab(place, make_plan(policy), policy_file), partial(_build, datapath=datapath))


def up_on_host(policy: Policy, place: Place, policy_file: str, ends: tuple[str, str], names: Sequence[str]) -> Lab:
    """Build this host's share of a lab: the named machines.  `ends` are this host's address and the other's.

    Raises what `up` raises, and ConfigError when the bridge of this host is in use.
    """
    plan = make_plan(policy)
    share = make_share(*ends, names, plan)
    _refuse_if_taken(place)
    refuse_foreign_bridge(Switch())
    return _up(Lab(place, plan, policy_file, share), lambda lab: build(lab.place, lab.plan, share, lab.ovs))


def _up(lab: Lab, make: Callable[[Lab], None]) -> Lab:
    if os.geteuid() != 0:
        raise ConfigError("a lab needs network namespaces: run this as root")
    _refuse_if_taken(lab.place)
    try:
        _claim(lab)
        make(lab)
    except FileExistsError:  # another process was faster; what is there is its own
        raise ConfigError(_taken(lab.place)) from None
    except BaseException:
        down(lab.place)
        raise
    return lab


def down(place: Place) -> bool:
    """Remove a lab, or what is left of one; whether there was anything."""
    state = _read_state(place)
    if share := _share(state):
        remove(place, share, Switch())
    doomed = netns.names(prefix(state.get("name", place.name)))
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
    lab = Lab(place, _read_plan(state["plan"]), state["policy_file"], _share(state))
    whole = bool(netns.names(prefix(place.name))) if lab.share else _private(place).is_running()
    if not whole:
        raise ConfigError(f"the lab in {place.directory} is damaged: `ovsfw lab down` removes it")
    return lab


def _private(place: Place) -> PrivateSwitch:
    return PrivateSwitch(place.directory, namespace(place, "switch"))


def _refuse_if_taken(place: Place) -> None:
    """Raises ConfigError when the lab is there already."""
    if (place.directory / _STATE).exists() or netns.names(prefix(place.name)):
        raise ConfigError(_taken(place))
    if place.directory.exists() and any(place.directory.iterdir()):
        raise ConfigError(f"{place.directory}: not empty; a lab needs a directory of its own")


def _taken(place: Place) -> str:
    remedy = f"ovsfw lab down --name {place.name} --directory {place.directory}"
    return f"lab {place.name!r} is up already, or was left behind; take it down first: {remedy}"


def _claim(lab: Lab) -> None:
    """Write the state before anything is made.  Raises FileExistsError when another process did."""
    lab.place.directory.mkdir(parents=True, exist_ok=True)
    state = {"name": lab.place.name, "policy_file": lab.policy_file, "plan": asdict(lab.plan), "share": lab.share}
    with (lab.place.directory / _STATE).open("x") as file:
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


def _share(state: dict[str, Any]) -> Share | None:
    found = state.get("share")
    return Share(found[0], found[1], tuple(found[2])) if found else None


def _build(lab: Lab, datapath: str) -> None:
    """Namespaces and veths first, in one go; then the switch and all machines at the same time; then plug in."""
    place, plan = lab.place, lab.plan
    switch = _private(place)
    spaces = ["switch", *(machine.name for machine in plan.machines)]
    netns.batch(f"netns add {namespace(place, name)}" for name in spaces)
    netns.inside(switch.netns, "sh", "-c", _SWITCH_SETUP)
    netns.batch((_link(place, machine) for machine in plan.machines), switch.netns)
    starting = (partial(machines.start, place, machine) for machine in plan.machines)
    _at_the_same_time(partial(_start_switch, switch, datapath), *starting)
    switch.vsctl(*machines.plug(plan.machines))


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


def _start_switch(switch: PrivateSwitch, datapath: str) -> None:
    switch.start()
    switch.add_bridge(BRIDGE, datapath)


def _link(place: Place, machine: Machine) -> str:
    own = namespace(place, machine.name)
    return f"link add name {machine.name} up type veth peer name eth0 address {machine.mac} netns {own}"
