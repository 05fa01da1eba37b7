"""What a real Neutron does with our driver, by packets, beside its own: `python -m tests.neutron.real`, in a sandbox.

One server, a host whose agent has `firewall_driver = ovsfw` and one with Neutron's own.  The same cases run on both;
how long it takes from the answer of the API until packets obey is printed for both.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.neutron import concert
from tests.neutron.bench import (
    OBEY_TIMEOUT,
    Bench,
    Machines,
    change_port,
    connects,
    delete,
    group,
    listen,
    lost_before_the_end,
    pings,
    rule,
    stays,
    talking,
    tcp,
)
from tests.neutron.lab import Host, Lab, LabError, Vm, api, create, run, until

# --- Cases ----------------------------------------------------------------------------------------------------------


def default_group(bench: Bench, on: Machines) -> None:
    """Members of a group whose rule names itself reach each other; others do not reach them; all may send."""
    rule(on.web, remote_group_id=on.web["id"])
    bench.obeys("same group", lambda: pings(on.sibling, on.server))
    stays(lambda: not pings(on.client, on.server), "a stranger reaches a member")
    stays(lambda: not pings(on.server, on.client), "a group without ingress rules is reached")


def rules_come_and_go(bench: Bench, on: Machines) -> None:
    """A rule opens a port, and no other; an established connection ends when its rule goes."""
    made = tcp(on.web, 80)
    bench.obeys("rule added", lambda: connects(on.client, on.server, 80))
    stays(lambda: not connects(on.client, on.server, 81), "the next port is open")
    with talking(on.client, on.server, 80) as answers:
        if not answers():
            raise LabError("no answer on an established connection")
        delete("security-group-rule", made)
        bench.obeys("rule deleted", lambda: not connects(on.client, on.server, 80))
        bench.obeys("established connection cut", lambda: not answers())


def remote_groups(bench: Bench, on: Machines) -> None:
    """Members of another group get access while they are members; so do those that join later."""
    third = group("third")
    made = tcp(on.web, 443, remote_group_id=third["id"])
    stays(lambda: not connects(on.client, on.server, 443), "somebody outside the remote group has access")
    change_port(on.client, security_groups=[on.other["id"], third["id"]])
    bench.obeys("remote group joined", lambda: connects(on.client, on.server, 443))
    change_port(on.client, security_groups=[on.other["id"]])
    bench.obeys("remote group left", lambda: not connects(on.client, on.server, 443))
    delete("security-group-rule", made)


def address_groups(bench: Bench, on: Machines) -> None:
    """So do the addresses of an address group; a prefix beside them does not."""
    office = create("address-group", name="office", addresses=["192.0.2.0/24"])
    made = tcp(on.web, 443, remote_address_group_id=office["id"])
    stays(lambda: not connects(on.client, on.server, 443), "an address outside the address group has access")
    path = f"address-groups/{office['id']}"
    addresses = {"addresses": [f"{on.client.address}/32"]}
    api("PUT", f"{path}/add_addresses", addresses)
    bench.obeys("address added", lambda: connects(on.client, on.server, 443))
    api("PUT", f"{path}/remove_addresses", addresses)
    bench.obeys("address removed", lambda: not connects(on.client, on.server, 443))
    delete("security-group-rule", made)


def prefixes(bench: Bench, on: Machines) -> None:
    """A rule for a prefix is for that prefix."""
    near = rule(on.web, protocol="icmp", remote_ip_prefix=f"{on.client.address}/32")
    bench.obeys("prefix", lambda: pings(on.client, on.server))
    delete("security-group-rule", near)
    bench.obeys("prefix deleted", lambda: not pings(on.client, on.server))
    far = rule(on.web, protocol="icmp", remote_ip_prefix="192.0.2.0/24")
    stays(lambda: not pings(on.client, on.server), "an address outside the prefix has access")
    delete("security-group-rule", far)


def spoofing(bench: Bench, on: Machines) -> None:
    """A VM sends from its own addresses and its address pairs; without port security from any."""
    borrowed = re.sub(r"\d+$", "222", on.sibling.address)
    run("ip", "-n", on.sibling.name, "addr", "add", f"{borrowed}/24", "dev", "eth0")

    def passes() -> bool:
        return on.sibling.execute("ping", "-c1", "-W1", "-I", borrowed, on.server.address)

    opening = rule(on.web, protocol="icmp")
    until(lambda: pings(on.client, on.server), "ICMP open", OBEY_TIMEOUT)
    stays(lambda: not passes(), "a foreign address is believed")
    change_port(on.sibling, allowed_address_pairs=[{"ip_address": borrowed}])
    bench.obeys("address pair added", passes)
    change_port(on.sibling, allowed_address_pairs=[])
    bench.obeys("address pair removed", lambda: not passes())
    change_port(on.sibling, security_groups=[], port_security_enabled=False)
    bench.obeys("port security off", passes)
    change_port(on.sibling, port_security_enabled=True, security_groups=[on.web["id"]])
    bench.obeys("port security on", lambda: not passes())
    delete("security-group-rule", opening)


def stateless(bench: Bench, on: Machines) -> None:
    """With a stateless group answers need rules, too; Neutron's own driver knows no such groups."""
    bare = group("stateless", stateful=False)
    machine = bench.boot("bare", bare)
    listen(machine, 80)
    tcp(bare, 80)
    until(lambda: connects(on.client, machine, 80), "stateless, as it begins", OBEY_TIMEOUT)
    for old in [each for each in bare["security_group_rules"] if each["direction"] == "egress"]:
        delete("security-group-rule", old)
    if bench.is_ours:
        bench.obeys("stateless, no answers", lambda: not connects(on.client, machine, 80))
        stays(lambda: not connects(on.client, machine, 80), "an answer passes without a rule")
    rule(bare, direction="egress")
    bench.obeys("stateless, both directions", lambda: connects(on.client, machine, 80))


def restarts(bench: Bench, on: Machines) -> None:
    """An agent that is killed and started again loses no packet of a live stream, and changes no flow."""
    opening = rule(on.web, protocol="icmp")
    until(lambda: pings(on.client, on.server), "ICMP open", OBEY_TIMEOUT)
    said = len(bench.lab.agent_log(bench.host))
    command = ("ip", "netns", "exec", on.client.name, "ping", "-i", "0.05", "-W", "1", on.server.address)
    ping = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bench.lab.kill_agent(bench.host)
    began = time.monotonic()
    bench.lab.start_agent(bench.host)
    has_cleaned_up(bench, on.client, said)
    delete("security-group-rule", opening)
    made = tcp(on.web, 80)
    until(lambda: connects(on.client, on.server, 80), "the agent works again")
    bench.times["agent restarted, until a new rule holds"] = time.monotonic() - began
    ping.send_signal(2)
    told = ping.communicate()[0]
    # The rule for ICMP goes with the restart, which must not matter before it has gone.
    bench.times["lost pings of the restart"] = lost_before_the_end(told)
    if bench.times["lost pings of the restart"]:
        raise LabError(f"the restart of the agent lost packets: {told[-300:]}")
    if bench.is_ours:
        _no_flow_is_new(bench.host, time.monotonic() - began)
    delete("security-group-rule", made)


def has_cleaned_up(bench: Bench, machine: Vm, said: int) -> None:
    """Wait until an agent that has started anew has: in the second round in which there is work, so it gets some.

    `said` is how long its log was before.  Raises LabError.
    """

    def tells(what: str) -> bool:
        return what in bench.lab.agent_log(bench.host)[said:]

    until(lambda: tells("ports processed"), "the agent has found its ports")
    change_port(machine, description=f"seen at {said}")
    until(lambda: tells("Cleaning stale"), "the agent has cleaned up")


def _no_flow_is_new(host: Host, seconds: float) -> None:
    """All our flows but those of the rule that was changed are older than the restart."""
    flows = host.ovs("ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "br-int")
    ours = [line for line in flows.splitlines() if "cookie=0xf5f" in line]
    young = [line for line in ours if float(re.findall(r"duration=([\d.]+)s", line)[0]) < seconds]
    unexpected = [line for line in young if "ingress_rules" not in line and "tp_dst=80" not in line]
    if unexpected or len(ours) < 100:
        raise LabError(f"{len(unexpected)} of {len(ours)} flows were sent again after a restart: {unexpected[:3]}")


CASES = (
    default_group, rules_come_and_go, remote_groups, address_groups, prefixes, spoofing, stateless, restarts,
)  # fmt: skip


# --- All of it ------------------------------------------------------------------------------------------------------


def main() -> int:
    """Start, run every case on every host, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path(".build/neutron-lab"))
    parser.add_argument("--drivers", nargs="+", default=["ovsfw", "openvswitch"])
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--distributed", action="store_true", help="l2population, DVR and explicitly_egress_direct")
    given = parser.parse_args()
    lab = Lab(given.directory, tuple(given.drivers), distributed=given.distributed)
    began = time.monotonic()
    lab.start()
    print(f"a real Neutron with {len(lab.hosts)} hosts: {time.monotonic() - began:.0f} s", flush=True)
    cases = [case for case in (*CASES, *concert.CASES, *concert.OURS) if given.only in case.__name__]
    benches = [bench_of(lab, host) for host in lab.hosts]
    done = failed = 0
    for bench in benches:
        machines = machines_of(bench)
        for case in cases:
            if bench.is_ours or case not in concert.OURS:
                done += 1
                failed += not passes(case, bench, machines)
    if len(benches) > 1:
        done += 1
        failed += not across(lab, benches)
    print_times(benches)
    print(f"{done - failed} passed, {failed} failed")
    return 1 if failed else 0


def bench_of(lab: Lab, host: Host) -> Bench:
    network = create("network", name=f"net{host.number}")
    create("subnet", network_id=network["id"], ip_version=4, cidr=f"10.{host.number}.0.0/24", enable_dhcp=False)
    return Bench(lab, host, network, {})


def machines_of(bench: Bench) -> Machines:
    web, other = group("web"), group("other")
    server, sibling, client = bench.boot("server", web), bench.boot("sibling", web), bench.boot("client", other)
    listen(server, 80, 81, 443)
    return Machines(web, other, server, sibling, client)


def passes(case: Callable[[Bench, Machines], None], bench: Bench, machines: Machines) -> bool:
    began = time.monotonic()
    name = case.__name__.replace("_", " ")
    try:
        case(bench, machines)
    except LabError as error:
        print(f"{bench.host.name}: {name}: FAILED: {error}", flush=True)
        tidy(machines)
        # Another driver than ours may fail: it is here to be compared with.
        return not bench.is_ours
    print(f"{bench.host.name}: {name}: passed, {time.monotonic() - began:.1f} s", flush=True)
    return True


def tidy(on: Machines) -> None:
    """What a case that has failed leaves must not make the next one fail."""
    with suppress(LabError, OSError):
        for each in (on.web, on.other):
            path = f"security-group-rules?direction=ingress&security_group_id={each['id']}"
            for left in api("GET", path)["security_group_rules"]:
                delete("security-group-rule", left)
        for machine, its in ((on.server, on.web), (on.sibling, on.web), (on.client, on.other)):
            change_port(machine, port_security_enabled=True, security_groups=[its["id"]], allowed_address_pairs=[])


def across(lab: Lab, benches: list[Bench]) -> bool:
    """Two VMs of one network on two hosts, by the tunnel."""
    everything = group("across")
    rule(everything, protocol="icmp", remote_group_id=everything["id"])
    network = benches[0].network
    try:
        here, there = (
            lab.boot(bench.host, f"across-{bench.host.number}", network, [everything["id"]])
            for bench in (benches[0], benches[-1])
        )
        took = until(lambda: pings(here, there) and pings(there, here), "hosts reach each other", OBEY_TIMEOUT)
    except LabError as error:
        print(f"across hosts: FAILED: {error}", flush=True)
        return False
    print(f"across hosts: passed, {took:.1f} s", flush=True)
    return True


def print_times(benches: list[Bench]) -> None:
    print(f"{'seconds from the answer of the API to packets':50}" + "".join(f"{b.host.driver:>14}" for b in benches))
    for what in benches[0].times:
        found = (f"{bench.times[what]:14.2f}" if what in bench.times else f"{'-':>14}" for bench in benches)
        print(f"{what:50}" + "".join(found))


if __name__ == "__main__":
    sys.exit(main())
