"""Both drivers of Neutron's L2 agent beside each other, driven as the agent drives them: `scripts/bench-neutron`.

Each runs in a sandbox with a fresh Open vSwitch (see tests/neutron/functional.py).  What the agent does after a message
is done here: tell the driver of rules or members, then update the filter of each port that is concerned, all deferred.
Flow mods are counted by the switch, as OpenFlow messages that it gets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ovsfw.lab.shapes import SHAPES, shape
from tests.neutron.functional import DRIVERS, SANDBOX, start_open_vswitch
from tests.neutron_agent import FLOWS

BRIDGE = "br-int"
TAG = 7
# By ethertype, addresses with their MACs.
Members = dict[str, list[tuple[str, str]]]
RUN, AGAIN = "run", "again"
_FAMILIES = {"IPv4": ".", "IPv6": ":"}


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="scripts/bench-neutron", description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="?", default="small", choices=SHAPES)
    parser.add_argument("--first-sync", action="store_true", help="nothing after that")
    parser.add_argument("--driver", choices=DRIVERS, default="", help=argparse.SUPPRESS)
    parser.add_argument("--phase", choices=(RUN, AGAIN), default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phase:
        print(json.dumps(_phase(given.shape, given.driver, given.phase, first=given.first_sync)), flush=True)
        # Not by sys.exit: threads of the drivers cannot be joined.
        os._exit(0)
    if given.driver:
        print(json.dumps(_phases(given.shape, given.driver, first=given.first_sync)))
        return 0
    found = {driver: _in_sandbox(given.shape, driver, first=given.first_sync) for driver in DRIVERS}
    print(f"| {given.shape} | " + " | ".join(found) + " |")
    print("|---|" + "---|" * len(found))
    for what in next(iter(found.values())):
        print(f"| {what} | " + " | ".join(each[what] for each in found.values()) + " |")
    return 0


def _in_sandbox(name: str, driver: str, *, first: bool) -> dict[str, str]:
    return _last_line([*SANDBOX, *_myself(name, driver, first=first)])


def _myself(name: str, driver: str, *, first: bool) -> list[str]:
    words = [sys.executable, "-W", "ignore", "-m", __spec__.name, name, "--driver", driver]
    return [*words, "--first-sync"] if first else words


def _phases(name: str, driver: str, *, first: bool) -> dict[str, str]:
    """The second one is an agent that is started again."""
    start_open_vswitch()
    found: dict[str, str] = {}
    for phase in (RUN,) if first else (RUN, AGAIN):
        found |= _last_line([*_myself(name, driver, first=first), "--phase", phase])
    return found


def _last_line(command: list[str]) -> dict[str, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- One driver -----------------------------------------------------------------------------------------------------


class Agent:
    """What the agent knows of a policy document, and what it does with it."""

    def __init__(self, name: str, driver: str) -> None:
        document = shape(name)
        self.rules = {group["id"]: [_rule(rule) for rule in group["rules"]] for group in document["security_groups"]}
        self.members: dict[str, Members] = defaultdict(lambda: {kind: [] for kind in _FAMILIES})
        for port in document["ports"]:
            self._join(port)
        self.here = {port["id"]: _device(port, self.rules) for port in document["ports"] if "local" in port["id"]}
        self.firewall = _made(driver)

    def _join(self, port: dict[str, Any]) -> None:
        for group in port["security_groups"]:
            for kind, sign in _FAMILIES.items():
                texts = (each["ip_address"] for each in port["fixed_ips"] if sign in each["ip_address"])
                self.members[group][kind] += [(text, port["mac_address"]) for text in texts]

    def start(self) -> None:
        """Everything, for all ports."""
        with self.firewall.defer_apply():
            for group, rules in self.rules.items():
                self.firewall.update_security_group_rules(group, rules)
                self.firewall.update_security_group_members(group, self.members[group])
            for device in self.here.values():
                self.firewall.prepare_port_filter(device)

    def add_rule(self, group: str) -> None:
        """One more, and everybody with the group is told."""
        fresh = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 40000}
        self.rules[group] = [*self.rules[group], _rule({**fresh, "port_range_max": 40000})]
        self._rules(group)

    def remove_rule(self, group: str) -> None:
        """The last one."""
        self.rules[group] = self.rules[group][:-1]
        self._rules(group)

    def _rules(self, group: str) -> None:
        self.firewall.security_group_updated("sg_rule", [group])
        with self.firewall.defer_apply():
            self.firewall.update_security_group_rules(group, self.rules[group])
            self._refresh(lambda device: group in device["security_groups"])

    def add_member(self, group: str) -> None:
        """Elsewhere; everybody with a rule that refers to the group is told."""
        self.members[group]["IPv4"] = [*self.members[group]["IPv4"], ("10.254.0.1", "52:54:fe:00:00:01")]
        self._members(group)

    def remove_member(self, group: str) -> None:
        """The last one."""
        self.members[group]["IPv4"] = self.members[group]["IPv4"][:-1]
        self._members(group)

    def _members(self, group: str) -> None:
        self.firewall.security_group_updated("sg_member", [group])
        with self.firewall.defer_apply():
            self.firewall.update_security_group_members(group, self.members[group])
            self._refresh(lambda device: group in device["security_group_source_groups"])

    def _refresh(self, concerned: Callable[[dict[str, Any]], bool]) -> None:
        for device in filter(concerned, self.here.values()):
            self.firewall.update_port_filter(device)

    def unplug(self, name: str) -> None:
        """One port."""
        with self.firewall.defer_apply():
            self.firewall.remove_port_filter(self.here[name])

    def plug(self, name: str) -> None:
        """It again."""
        with self.firewall.defer_apply():
            self.firewall.prepare_port_filter(self.here[name])


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """As the server's message has it."""
    words = {"remote_ip_prefix": "source_ip_prefix" if rule["direction"] == "ingress" else "dest_ip_prefix"}
    return {"ethertype": "IPv4", **{words.get(name, name): value for name, value in rule.items()}}


def _device(port: dict[str, Any], rules: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    remotes = {rule.get("remote_group_id") for group in port["security_groups"] for rule in rules[group]}
    return {
        "device": port["id"],
        "id": port["id"],
        "mac_address": port["mac_address"],
        "fixed_ips": [each["ip_address"] for each in port["fixed_ips"]],
        "allowed_address_pairs": [],
        "security_groups": port["security_groups"],
        "security_group_source_groups": sorted(remotes - {None}),
        "network_id": "net",
        "port_security_enabled": True,
        "device_owner": "compute:nova",
        "lvlan": TAG,
    }


def _made(driver: str) -> Any:
    """The driver, on a bridge as the agent has it."""
    from neutron import privileged  # noqa: PLC0415 - only where Neutron is
    from neutron.agent.common import ovs_lib  # noqa: PLC0415
    from neutron.common import config  # noqa: PLC0415
    from neutron.conf.agent import common as agent_config  # noqa: PLC0415
    from neutron.conf.agent import securitygroups_rpc  # noqa: PLC0415
    from neutron.conf.plugins.ml2.drivers import ovs_conf  # noqa: PLC0415
    from neutron.plugins.ml2.drivers.openvswitch.agent.openflow import br_cookie  # noqa: PLC0415
    from oslo_config import cfg  # noqa: PLC0415
    from oslo_privsep import priv_context  # noqa: PLC0415

    config.register_common_config_options()
    agent_config.register_root_helper(cfg.CONF)
    ovs_conf.register_ovs_agent_opts(cfg.CONF)
    securitygroups_rpc.register_securitygroups_opts()
    cfg.CONF([], project="neutron")
    cfg.CONF.set_override("root_helper", "env", group="AGENT")
    # This is root already: what needs privileges is done here, and not by a helper.
    for context in vars(privileged).values():
        if isinstance(context, priv_context.PrivContext):
            context.set_client_mode(False)
    path, _, name = DRIVERS[driver].partition(":")
    bridge = type("Bridge", (br_cookie.OVSBridgeCookieMixin, ovs_lib.OVSBridge), {})
    return getattr(__import__(path, fromlist=[name]), name)(bridge(BRIDGE, datapath_type="netdev"))


def _add_bridge(name: str) -> None:
    words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"]
    words += ["protocols=OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14"]
    for port in shape(name)["ports"]:
        if "local" in port["id"]:
            words += ["--", "add-port", BRIDGE, port["id"], f"tag={TAG}"]
            words += ["--", "set", "port", port["id"], f"other_config:tag={TAG}"]
            words += ["--", "set", "interface", port["id"], "type=internal", f"external_ids:iface-id={port['id']}"]
            words += [f'external_ids:attached-mac="{port["mac_address"]}"']
    subprocess.run(["ovs-vsctl", *words], check=True)
    subprocess.run(["ovs-ofctl", "add-flows", BRIDGE, "-"], input=FLOWS, text=True, check=True)


def _phase(name: str, driver: str, phase: str, *, first: bool) -> dict[str, str]:
    if phase == RUN:
        _add_bridge(name)
    agent = Agent(name, driver)
    if phase == AGAIN:
        return dict(_timed("restart, nothing changed", agent.start))
    one = next(iter(agent.here))
    found = dict(_timed("first sync", agent.start))
    found["flows"] = f"{_flows():,}"
    if first:
        return found
    for what, work in (
        ("a rule is added", lambda: agent.add_rule("group-0")),
        ("a rule is removed", lambda: agent.remove_rule("group-0")),
        ("a member joins", lambda: agent.add_member("group-0")),
        ("a member leaves", lambda: agent.remove_member("group-0")),
        ("a port is unplugged", lambda: agent.unplug(one)),
        ("a port is plugged", lambda: agent.plug(one)),
    ):
        found |= dict(_timed(what, work))
    most = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found["memory at its peak: the process, the largest program it started"] = (
        " MiB, ".join(f"{value:.0f}" for value in most) + " MiB"
    )
    return found


def _timed(what: str, work: Callable[[], None]) -> Iterator[tuple[str, str]]:
    before, began = _messages(), time.perf_counter()
    work()
    took = time.perf_counter() - began
    yield what, f"{took:.2f} s, {_messages() - before:,} messages"


def _messages() -> int:
    """How many OpenFlow messages the switch has got."""
    command = ["ovs-appctl", "coverage/read-counter", "ofproto_recv_openflow"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _flows() -> int:
    dump = subprocess.run(["ovs-ofctl", "dump-aggregate", BRIDGE], capture_output=True, text=True, check=True).stdout
    return int(dump.rpartition("flow_count=")[2])


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    sys.exit(main())
