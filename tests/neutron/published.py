"""Neutron with the mechanism driver, the policy database and the daemon: `python -m tests.neutron.published`.

The cases of `real`, and those that only a policy database has.  Beside it runs a host with Neutron's own driver.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.neutron import concert
from tests.neutron.bench import (
    OBEY_TIMEOUT,
    Bench,
    Machines,
    connects,
    delete,
    group,
    pings,
    rule,
    stays,
    tcp,
)
from tests.neutron.lab import Host, LabError, Vm, api, create, until
from tests.neutron.policy_lab import DAEMON, PolicyLab
from tests.neutron.real import CASES, across, bench_of, has_cleaned_up, machines_of, passes, print_times

REPAIR_EVERY = 20.0


def lab_of(bench: Bench) -> PolicyLab:
    """With a policy database."""
    assert isinstance(bench.lab, PolicyLab)
    return bench.lab


def status(machine: Vm) -> str:
    """Of its port."""
    return str(api("GET", f"ports/{machine.port['id']}")["port"]["status"])


def is_wired(host: Host, port: str) -> bool:
    """Whether the agent has given a port its VLAN."""
    found = json.loads(host.ovs("ovs-vsctl", "--format=json", "get", "port", f"tap{port[:11]}", "tag") or "0")
    return isinstance(found, int) and 0 < found < 4095


@contextmanager
def pinging(source: Vm, target: Vm) -> Iterator[Callable[[], None]]:
    """Echo requests all the time; what it gives says whether all were answered.  Raises LabError."""
    command = ("ip", "netns", "exec", source.name, "ping", "-i", "0.1", "-W", "1", target.address)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def check() -> None:
        process.send_signal(2)
        told = process.communicate()[0]
        if " 0% packet loss" not in told:
            raise LabError(f"packets were lost: {told[-200:]}")

    try:
        yield check
    finally:
        process.kill()
        process.wait()


# --- Cases ----------------------------------------------------------------------------------------------------------


def bound_by_the_driver(_bench: Bench, on: Machines) -> None:
    """Ports are bound for Open vSwitch, filtered, without a hybrid bridge."""
    port = api("GET", f"ports/{on.server.port['id']}")["port"]
    found = {"vif_type": port["binding:vif_type"], **port["binding:vif_details"]}
    expected = {"vif_type": "ovs", "port_filter": True, "ovs_hybrid_plug": False}
    if not expected.items() <= found.items():
        raise LabError(f"bound as {found}")


def active_with_its_flows(bench: Bench, on: Machines) -> None:
    """A port is ACTIVE only when its flows are there; until then, it passes nothing."""
    lab, name = lab_of(bench), f"{bench.host.name}-ovsfw"
    lab.kill(name)
    with ThreadPoolExecutor(1) as pool:
        booting = pool.submit(bench.boot, "late", on.web)
        found: dict[str, Any] = {}

        def is_made() -> bool:
            ports = api("GET", f"ports?device_id=late-{bench.host.number}")["ports"]
            found.update(ports[0] if ports else {})
            return bool(ports) and succeeds_quietly(lambda: is_wired(bench.host, found["id"]))

        until(is_made, "the agent has wired it", OBEY_TIMEOUT)
        late = Vm(f"late-{bench.host.number}", bench.host, found)
        for _ in range(3):
            stays(lambda: status(late) != "ACTIVE", "ACTIVE without flows")
        stays(lambda: not pings(late, on.client), "a port without flows passes something")
        began = time.monotonic()
        lab.start_daemon(bench.host)
        booting.result()
        bench.times["daemon started, until the port is ACTIVE"] = time.monotonic() - began
    made = rule(on.web, protocol="icmp", remote_group_id=on.web["id"])
    until(lambda: pings(late, on.server), "it is a member of its group", OBEY_TIMEOUT)
    delete("security-group-rule", made)


def succeeds_quietly(what: Callable[[], bool]) -> bool:
    """False also where it cannot be asked yet."""
    with suppress(LabError, ValueError):
        return what()
    return False


def policy_database_away(bench: Bench, on: Machines) -> None:
    """Changes of that time are taken by the API at once, and arrive when it is back; what was allowed stays."""
    lab = lab_of(bench)
    began = time.monotonic()
    before = tcp(on.web, 81)
    usual = time.monotonic() - began
    until(lambda: connects(on.client, on.server, 81), "open before", OBEY_TIMEOUT)
    lab.stop_policy()
    began = time.monotonic()
    made = tcp(on.web, 80)
    delete("security-group-rule", before)
    change_groups(on.sibling, group("joined"))
    took = time.monotonic() - began
    if took > 4 * usual + 5:
        raise LabError(f"the API waited for the policy database: {took:.1f} s for four calls, {usual:.1f} s for one")
    stays(lambda: connects(on.client, on.server, 81), "what was allowed has gone")
    lab.start_policy()
    bench.obeys("policy database back: what was made meanwhile", lambda: connects(on.client, on.server, 80))
    until(lambda: not connects(on.client, on.server, 81), "what was deleted meanwhile", OBEY_TIMEOUT)
    delete("security-group-rule", made)
    change_groups(on.sibling, on.web)
    _is_published(lab)


def change_groups(machine: Vm, *groups: dict[str, Any]) -> None:
    """Give a port other groups."""
    values = {"security_groups": [each["id"] for each in groups]}
    machine.port = api("PUT", f"ports/{machine.port['id']}", {"port": values})["port"]


def server_away(bench: Bench, on: Machines) -> None:
    """What is allowed stays so, for new connections and for old ones; afterwards changes come through."""
    lab = lab_of(bench)
    opened = rule(on.web, protocol="icmp")
    until(lambda: pings(on.client, on.server), "open before", OBEY_TIMEOUT)
    with pinging(on.client, on.server) as check:
        lab.kill("neutron-api", "neutron-rpc")
        stays(lambda: pings(on.sibling, on.server), "a member of the group has no access")
        lab.start_server()
        check()
    delete("security-group-rule", opened)
    bench.obeys("server back: rule deleted", lambda: not pings(on.client, on.server))


def queue_away(bench: Bench, on: Machines) -> None:
    """Without RabbitMQ the agents hear nothing, and hosts that are filtered by the policy database hear everything."""
    lab = lab_of(bench)
    opened = rule(on.web, protocol="icmp")
    until(lambda: pings(on.client, on.server), "open before", OBEY_TIMEOUT)
    with pinging(on.client, on.server) as check:
        lab.kill("rabbitmq")
        with ThreadPoolExecutor(1) as pool:
            # Neutron's own notification of agents may keep the caller waiting.
            asked = pool.submit(tcp, on.web, 80)
            bench.obeys("RabbitMQ away: rule added", lambda: connects(on.client, on.server, 80))
            stays(lambda: pings(on.client, on.server), "a live rule has gone")
            lab.start_queue()
            with suppress(OSError):  # it may have waited for too long
                asked.result()
        check()
    for made in api("GET", f"security-group-rules?security_group_id={on.web['id']}&protocol=tcp")[
        "security_group_rules"
    ]:
        delete("security-group-rule", made)
    delete("security-group-rule", opened)
    until(lambda: not pings(on.client, on.server), "changes come through afterwards", OBEY_TIMEOUT)


def differences_by_hand(bench: Bench, on: Machines) -> None:
    """`ovsfw-neutron-sync` shows what was planted, and mends that."""
    lab = lab_of(bench)
    _is_published(lab)
    lab.kill("neutron-api", "neutron-rpc")
    lab.edit("rule", "add", on.web["id"], "direction=ingress", "protocol=tcp", "port_range_min=80", "port_range_max=80")
    lab.edit("port", "del", on.sibling.port["id"])
    lab.edit("address-group", "add", "by-hand", "addresses=192.0.2.7")
    bench.obeys("planted rule", lambda: connects(on.client, on.server, 80))
    code, told = lab.sync("--dry-run")
    expected = ("- rule ", on.web["id"], f"+ port {on.sibling.port['id']}", "2 differences")
    if code != 2 or not all(part in told for part in expected):
        raise LabError(f"--dry-run: {code}, {told}")
    code, told = lab.sync("--repair")
    if code or "2 differences, mended" not in told:
        raise LabError(f"--repair: {code}, {told}")
    until(lambda: not connects(on.client, on.server, 80), "the planted rule is gone", OBEY_TIMEOUT)
    code, told = lab.sync("--dry-run")
    if code or "0 differences" not in told:
        raise LabError(f"after --repair: {code}, {told}")
    lab.edit("address-group", "del", "by-hand")
    lab.start_server()


def differences_mended_alone(bench: Bench, on: Machines) -> None:
    """The servers find what differs by themselves."""
    lab = lab_of(bench)
    lab.edit("rule", "add", on.web["id"], "direction=ingress", "protocol=tcp", "port_range_min=80", "port_range_max=80")
    until(lambda: connects(on.client, on.server, 80), "the planted rule is there", OBEY_TIMEOUT)
    bench.times["a planted rule, until it is gone"] = until(
        lambda: not connects(on.client, on.server, 80), "the planted rule is gone", 3 * REPAIR_EVERY
    )


def many_at_once(bench: Bench, on: Machines) -> None:
    """Requests of many clients to several server processes end in one state, that of Neutron's database."""
    made = group("busy")
    change_groups(on.sibling, on.web, made)

    def work(number: int) -> None:
        each = tcp(made, 1000 + number)
        if number % 3:
            delete("security-group-rule", each)
        change_groups(on.client, *([on.other, made] if number % 2 else [on.other]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(30)))
    change_groups(on.client, on.other)
    change_groups(on.sibling, on.web)
    bench.times["30 rules by 8 clients, until published"] = _is_published(lab_of(bench))
    delete("security-group", made)


def addresses_of_a_subnet(bench: Bench, on: Machines) -> None:
    """A subnet whose addresses ports make themselves goes, and those addresses with it, by no comparison."""
    lab, port = lab_of(bench), on.sibling.port["id"]
    for _ in range(3):
        subnet = create(
            "subnet", network_id=bench.network["id"], ip_version=6, cidr=f"2001:db8:{bench.host.number}::/64",
            ipv6_address_mode="slaac", ipv6_ra_mode="slaac", enable_dhcp=True,
        )  # fmt: skip
        until(lambda: "2001:db8" in lab.row("port", port), "the address is published", OBEY_TIMEOUT)
        mended = lab.comparisons()
        delete("subnet", subnet)
        took = until(lambda: "2001:db8" not in lab.row("port", port), "the address is gone", OBEY_TIMEOUT)
        if lab.comparisons() == mended:
            bench.times["subnet deleted, until its addresses are"] = took
            return
    raise LabError("only the comparison finds that the addresses are gone")


def agent_without_the_extension(bench: Bench, on: Machines) -> None:
    """Its host gets no ports, for it clears away the way into the filter; a daemon that finds it gone says so."""
    lab, daemon = lab_of(bench), f"{bench.host.name}-ovsfw"
    lab.kill_agent(bench.host)
    lab.kill(daemon)
    said = len(lab.agent_log(bench.host))
    with lab.changed_agent(bench.host, "[agent]\nextensions = qos\n"):
        lab.start_agent(bench.host)
        has_cleaned_up(bench, on.client, said)
        # Should the agent keep it by itself, the extension would not be needed.
        until(lambda: pings(on.client, on.server), "the way into the filter is cleared away", OBEY_TIMEOUT)
        told = len(lab.log(daemon))
        lab.start_daemon(bench.host)
        bench.obeys("daemon back, until it filters", lambda: not pings(on.client, on.server))
        until(lambda: "flow that leads into the filter was gone" in lab.log(daemon)[told:], "the daemon says so", 30)
        until(lambda: not lab.has_extension(bench.host, "ovsfw"), "the server knows of the agent as it is now")
        port = create("port", network_id=bench.network["id"], **{"binding:host_id": bench.host.name})
        delete("port", port)
        if port["binding:vif_type"] != "binding_failed":
            raise LabError(f"a port is bound as {port['binding:vif_type']} on a host that may open")
        lab.kill_agent(bench.host)
    lab.start_agent(bench.host)
    until(lambda: lab.has_extension(bench.host, "ovsfw"), "the server knows of the extension again")


def both_by_mistake(bench: Bench, _on: Machines) -> None:
    """The daemon and the agent's driver on one bridge: who comes second refuses, and says why."""
    lab = lab_of(bench)
    told = lab.daemon_once(bench.host)
    if "already" not in told and "runs" not in told:
        raise LabError(f"a second daemon: {told!r}")
    lab.kill_agent(bench.host)
    said = len(lab.agent_log(bench.host))
    with lab.changed_agent(bench.host, "[securitygroup]\nfirewall_driver = ovsfw\n"):
        lab.start_agent(bench.host)
        until(lambda: "ovsfw.pid" in lab.agent_log(bench.host)[said:], "the agent says why it refuses", 60)
        # Its main thread is dead, and Neutron leaves the process behind.
        lab.kill_agent(bench.host)
    lab.start_agent(bench.host)


def _is_published(lab: PolicyLab) -> float:
    """Wait until the databases agree; how long it took."""
    return until(lambda: lab.sync("--dry-run")[0] == 0, "the policy database is as Neutron's", OBEY_TIMEOUT)


MORE_CASES = (
    bound_by_the_driver, active_with_its_flows, many_at_once, addresses_of_a_subnet, policy_database_away, server_away,
    queue_away, differences_by_hand, differences_mended_alone, agent_without_the_extension,
    both_by_mistake,
)  # fmt: skip


# --- All of it ------------------------------------------------------------------------------------------------------


def main() -> int:
    """Start, run every case on every host, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path(".build/neutron-lab"))
    parser.add_argument("--drivers", nargs="+", default=[DAEMON, "openvswitch"])
    parser.add_argument("--only", nargs="+", default=[""], help="cases with one of these in their name")
    given = parser.parse_args()
    lab = PolicyLab(given.directory, tuple(given.drivers), REPAIR_EVERY)
    began = time.monotonic()
    lab.start()
    print(f"a real Neutron with {len(lab.hosts)} hosts: {time.monotonic() - began:.0f} s", flush=True)
    benches = [bench_of(lab, host) for host in lab.hosts]
    done = failed = 0
    for bench in benches:
        machines = machines_of(bench)
        cases = (*CASES, *concert.BOTH_WAYS, *MORE_CASES) if bench.host.driver == DAEMON else CASES
        for case in [each for each in cases if any(word in each.__name__ for word in given.only)]:
            done += 1
            failed += not passes(case, bench, machines)
    if len(benches) > 1:
        done += 1
        failed += not across(lab, benches)
    print_times(benches)
    print(f"{done - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
