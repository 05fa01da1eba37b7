"""Cases in which the filter plays together with other features of Neutron, or parts of Neutron are away."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.neutron.bench import (
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
from tests.neutron.lab import PROJECT, Json, LabError, Vm, api, create, run, until

INNER_VLAN, DSCP = 101, 26
# After an outage the agent tries again after pauses that grow.
BACK_TIMEOUT = 150.0
_HEAR_TOS = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
link.settimeout(2)
link.bind(("", 7000))
print("ready", flush=True)
print(link.recvmsg(100, 100)[1][0][2][0] >> 2)
"""
_SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 7000))"


def log_objects(bench: Bench, on: Machines) -> None:
    """A log object gets what its port accepts and drops, with the rule that did it; and nothing once it is disabled."""
    opened = tcp(on.web, 80)
    values = {"resource_type": "security_group", "resource_id": on.web["id"], "target_id": on.server.port["id"]}
    log = create("log/log", **values, event="ALL")
    told = f"log_resource_ids=['{log['id']}'] vm_port={on.server.port['id']}"

    def logs(action: str, port: int, rule: str = "") -> bool:
        connects(on.client, on.server, port)
        found = re.findall(rf"action={action} .*{re.escape(told)} .*", _lines(bench))
        return any(rule in line for line in found)

    # The stock driver's line has no rule.
    rule = f'"rule": "{on.web["id"]}/ingress-ipv4-tcp-80"' if bench.is_ours else ""
    bench.obeys("log of what is accepted", lambda: logs("ACCEPT", 80, rule))
    bench.obeys("log of what is dropped", lambda: logs("DROP", 81))
    if on.sibling.port["id"] in _lines(bench):
        raise LabError("another port than the one that was asked about is logged")
    api("PUT", f"log/logs/{log['id']}", {"log": {"enabled": False}})

    def is_silent() -> bool:
        before = _lines(bench)
        connects(on.client, on.server, 80)
        connects(on.client, on.server, 81)
        return _lines(bench) == before

    bench.obeys("log disabled", is_silent)
    stays(is_silent, "a log object that is disabled logs")
    delete("log/log", log)
    delete("security-group-rule", opened)


def _lines(bench: Bench) -> str:
    path = bench.host.decisions
    return path.read_text() if path.exists() else ""


def trunk(bench: Bench, on: Machines) -> None:
    """The sub-port of a trunk is filtered by its own groups in its own network, its parent by the parent's."""
    inner = create("network", name=f"inner{bench.host.number}")
    cidr = f"10.{100 + bench.host.number}.0.0/24"
    create("subnet", network_id=inner["id"], ip_version=4, cidr=cidr, enable_dhcp=False)
    guarded, free = group("guarded"), group("free")
    peer = bench.lab.boot(bench.host, f"peer-{bench.host.number}", inner, [free["id"]])
    parent, child = _trunk(bench, inner, on.web, guarded)
    listen(parent, 80, 81)
    opened = tcp(guarded, 80)
    bench.obeys("rule of a sub-port", lambda: connects(peer, child, 80))
    stays(lambda: not connects(peer, child, 81), "the next port of a sub-port is open")
    stays(lambda: not connects(on.client, parent, 80), "the rule of a sub-port opens its parent")
    delete("security-group-rule", opened)
    bench.obeys("rule of a sub-port deleted", lambda: not connects(peer, child, 80))


def _trunk(bench: Bench, inner: Json, outer_group: Json, inner_group: Json) -> tuple[Vm, Vm]:
    """A VM with a trunk, by its parent port and by its sub-port."""
    name = f"trunk-{bench.host.number}"
    port = create("port", network_id=bench.network["id"], security_groups=[outer_group["id"]])
    sub = create("port", network_id=inner["id"], security_groups=[inner_group["id"]])
    below = {"port_id": sub["id"], "segmentation_type": "vlan", "segmentation_id": INNER_VLAN}
    create("trunk", port_id=port["id"], sub_ports=[below])
    # A port that is in use already cannot become a parent.
    used = {"binding:host_id": bench.host.name, "device_owner": "compute:nova", "device_id": name}
    port = api("PUT", f"ports/{port['id']}", {"port": used})["port"]
    parent, child = Vm(name, bench.host, port), Vm(name, bench.host, sub)
    _plug_trunk(parent, child, bench.network["mtu"])
    for each in (port, sub):
        path = f"ports/{each['id']}"
        until(lambda path=path: api("GET", path)["port"]["status"] == "ACTIVE", "the trunk is active", 60)  # type: ignore[misc]
    return parent, child


def _plug_trunk(parent: Vm, child: Vm, mtu: int) -> None:
    """Plug a VM into its trunk bridge.

    Its operating system's VLANs are a bridge of Open vSwitch, for not every kernel has VLAN devices.
    """
    host, ovs = parent.host, parent.host.ovs
    trunk_bridge, inside = parent.port["binding:vif_details"]["bridge_name"], f"guest{host.number}"
    for bridge in (trunk_bridge, inside):
        ovs("ovs-vsctl", "--may-exist", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev")
    run("ip", "netns", "add", parent.name)
    for machine, device, tag in ((parent, "eth0", ""), (child, "inner", f"tag={INNER_VLAN}")):
        outer = f"{device}-{host.number}"
        run("ip", "-n", host.netns, "link", "add", outer, "type", "veth", "peer", "name", device, "netns", parent.name)
        up = ("address", machine.port["mac_address"], "mtu", str(mtu - 4), "up")
        run("ip", "-n", parent.name, "link", "set", device, *up)
        run("ip", "netns", "exec", parent.name, "ethtool", "-K", device, "tx", "off", check=False)
        run("ip", "-n", parent.name, "addr", "add", f"{machine.address}/24", "dev", device)
        run("ip", "-n", host.netns, "link", "set", outer, "up")
        ovs("ovs-vsctl", "add-port", inside, outer, *([tag] if tag else []))
    tap, back = f"tap{parent.port['id'][:11]}", f"gst{parent.port['id'][:11]}"
    ids = {"iface-id": parent.port["id"], "iface-status": "active", "attached-mac": parent.port["mac_address"]}
    settings = [f'external_ids:{key}="{value}"' for key, value in ids.items()]
    patch = ("ovs-vsctl", "add-port", inside, back, "--", "set", "interface", back, "type=patch", f"options:peer={tap}")
    ovs(*patch)
    ovs(
        "ovs-vsctl", "add-port", trunk_bridge, tap,
        "--", "set", "interface", tap, "type=patch", f"options:peer={back}", *settings,
    )  # fmt: skip


def quality(bench: Bench, on: Machines) -> None:
    """The marks and limits of a QoS policy come on top of the filter."""
    opened = rule(on.web, protocol="udp", port_range_min=7000, port_range_max=7000)
    policy = api("POST", "qos/policies", {"policy": {"name": "gold", "project_id": PROJECT}})["policy"]
    path = f"qos/policies/{policy['id']}"
    api("POST", f"{path}/dscp_marking_rules", {"dscp_marking_rule": {"dscp_mark": DSCP}})
    api("POST", f"{path}/bandwidth_limit_rules", {"bandwidth_limit_rule": {"max_kbps": 5000, "direction": "egress"}})
    change_port(on.client, qos_policy_id=policy["id"])
    bench.obeys("DSCP mark", lambda: _mark(on) == str(DSCP))
    tap = f"tap{on.client.port['id'][:11]}"
    limit = ("ovs-vsctl", "get", "interface", tap, "ingress_policing_rate")
    until(lambda: bench.host.ovs(*limit).strip() == "5000", "the limit is set", 30)
    delete("security-group-rule", opened)
    bench.obeys("rule deleted beside a QoS policy", lambda: _mark(on) == "")
    change_port(on.client, qos_policy_id=None)


def local_ips(bench: Bench, on: Machines) -> None:
    """A local IP of a port is answered from that address, and only as the rules allow it; taken away, by nobody."""
    number = bench.host.number
    made = create("local-ip", network_id=bench.network["id"], local_ip_address=f"10.{number}.0.200")
    path = f"local-ips/{made['id']}/port_associations"
    asked = {"fixed_port_id": on.server.port["id"], "project_id": PROJECT}
    # Neutron 29.0.0 makes it, tells the agents, and then cannot write the address into its answer.
    with suppress(LabError):
        api("POST", path, {"port_association": asked})
    local = Vm(on.server.name, bench.host, {"fixed_ips": [{"ip_address": made["local_ip_address"]}]})
    opened = tcp(on.web, 80)
    bench.obeys("rule added, by a local IP", lambda: connects(on.client, local, 80))
    stays(lambda: not connects(on.client, local, 81), "the next port is open by a local IP")
    stays(lambda: connects(on.client, on.server, 80), "the port's own address is as open as its local IP")
    with talking(on.client, local, 80) as answers:
        if not answers():
            raise LabError("no answer on an established connection by a local IP")
        delete("security-group-rule", opened)
        bench.obeys("rule deleted, by a local IP", lambda: not connects(on.client, local, 80))
        bench.obeys("established connection by a local IP cut", lambda: not answers())
    opened = rule(on.web, protocol="icmp")
    bench.obeys("ICMP by a local IP", lambda: pings(on.client, local))
    api("DELETE", f"{path}/{on.server.port['id']}")
    bench.obeys("local IP taken away", lambda: not pings(on.client, local))
    stays(lambda: pings(on.client, on.server), "the port's own address goes with its local IP")
    delete("security-group-rule", opened)
    delete("local-ip", made)


def _mark(on: Machines) -> str:
    """The DSCP mark of a datagram as the server gets it; empty when it gets none."""
    inside = ("ip", "netns", "exec", on.server.name, sys.executable, "-S", "-c", _HEAR_TOS)
    with subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as hearing:
        assert hearing.stdout is not None
        hearing.stdout.readline()
        on.client.execute(sys.executable, "-S", "-c", _SEND, on.server.address)
        return hearing.stdout.readline().strip()


# --- Outages --------------------------------------------------------------------------------------------------------


def queue_outage(bench: Bench, on: Machines) -> None:
    """Without RabbitMQ traffic keeps its policy; later changes hold, those of the outage when the agent starts anew.

    Neutron's agent may subscribe again after those were told of, and asks for nothing that it has once been told.
    """
    with _live(on):
        bench.lab.kill("rabbitmq")
        stays(lambda: connects(on.client, on.server, 80), "what is allowed does not pass without RabbitMQ")
        stays(lambda: not connects(on.client, on.server, 81), "what is denied passes without RabbitMQ")
        made: list[Json] = []
        # The API answers when it has told the agents.
        asking = threading.Thread(target=lambda: made.append(tcp(on.web, 443)))
        asking.start()
        last = bench.lab.heard_of(bench.host)
        bench.lab.start_queue()
        until(lambda: bench.lab.heard_of(bench.host) != last, "the agent reports", BACK_TIMEOUT)
        asking.join()
        made.append(tcp(on.web, 81))
        arrived = until(lambda: connects(on.client, on.server, 81), "a change arrives", BACK_TIMEOUT)
        bench.times["RabbitMQ is back, until a change holds"] = arrived
        bench.lab.kill_agent(bench.host)
        bench.lab.start_agent(bench.host)
        until(lambda: connects(on.client, on.server, 443), "the change of the outage arrives", BACK_TIMEOUT)
    for each in made:
        delete("security-group-rule", each)
    until(lambda: not connects(on.client, on.server, 443), "the next change arrives", BACK_TIMEOUT)


def server_outage(bench: Bench, on: Machines) -> None:
    """Without a server traffic keeps its policy; changes go on when it is back."""
    with _live(on):
        bench.lab.kill("neutron-api", "neutron-rpc")
        stays(lambda: connects(on.client, on.server, 80), "what is allowed does not pass without a server")
        stays(lambda: not connects(on.client, on.server, 81), "what is denied passes without a server")
        bench.lab.start_server()
        made = tcp(on.web, 443)
        took = until(lambda: connects(on.client, on.server, 443), "a change arrives", BACK_TIMEOUT)
        bench.times["server is back, until a change holds"] = took
    delete("security-group-rule", made)


@contextmanager
def _live(on: Machines) -> Iterator[None]:
    """Port 80 is open, and meanwhile no echo request is lost, nor an established connection.  Raises LabError."""
    rules = [tcp(on.web, 80), rule(on.web, protocol="icmp")]
    until(lambda: connects(on.client, on.server, 80) and pings(on.client, on.server), "rules added", 30)
    command = ("ip", "netns", "exec", on.client.name, "ping", "-i", "0.05", "-W", "1", on.server.address)
    ping = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with talking(on.client, on.server, 80) as answers:
        yield
        if not answers():
            raise LabError("an established connection did not survive")
    ping.send_signal(2)
    lost = lost_before_the_end(ping.communicate()[0])
    if lost:
        raise LabError(f"{lost} echo requests were lost")
    for each in rules:
        delete("security-group-rule", each)
    until(lambda: not connects(on.client, on.server, 80), "rules deleted", BACK_TIMEOUT)


# The logging API is for the driver in the agent.
BOTH_WAYS = (trunk, quality, local_ips)
CASES = (log_objects, *BOTH_WAYS)
# Nothing of these is to be compared.
OURS: tuple[Callable[[Bench, Machines], None], ...] = (queue_outage, server_outage)
