"""The flows of Neutron's local IPs.

A local IP is a second address of a port, for its host alone.  What is sent there gets the port's own address before the
filter, and what the port answers gets the local IP behind it: filter and conntrack see the port's own address alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from ovsfw.compiler.hook import LOCAL_IPS, NEUTRON

BEFORE = 31
"""LOCAL_IP_TABLE of Neutron's agent (neutron_lib.plugins.ml2.ovs_constants): what VMs send comes there."""
# How long an answer is expected after the last packet either way, in seconds (ovs-actions(7), learn).
_WAITING = {"icmp": "idle_timeout=30", "tcp": "idle_timeout=300,fin_idle_timeout=5", "udp": "idle_timeout=30"}
# How many connections to one local IP are remembered at once, for each costs the switch memory.
MOST = 10000
_PRIORITY, _LEARNED = 10, 5
# What can be answered: its number, and the name of its ports.
_PROTOCOLS = {"icmp": (1, ""), "tcp": (6, "TCP"), "udp": (17, "UDP")}


def flows(vlan: int, local_ip: str, dest_ip: str, mac: str) -> Iterator[dict[str, Any]]:
    """The flows of a local IP, as Neutron's bridge takes them.

    OXM's metadata, which no packet comes with, has the local IP while the packet passes the filter: so only a packet
    that was let through, from whom it says it is, teaches how it is answered.
    """
    address = int(IPv4Address(local_ip))
    for protocol, (number, ports) in _PROTOCOLS.items():
        match = {"priority": _PRIORITY, "proto": protocol, "reg6": vlan}
        before = (
            f"mod_dl_dst:{mac}",
            f"mod_nw_dst:{dest_ip}",
            f"set_field:{address}->metadata",
            f"resubmit(,{NEUTRON.table})",
        )
        yield {**match, "table": BEFORE, "nw_dst": local_ip, "actions": ",".join(before)}
        answer = (
            f"table={LOCAL_IPS},cookie={vlan << 32 | address:#x},limit={MOST}",
            f"priority={_LEARNED},{_WAITING[protocol]}",
            f"NXM_NX_REG6[0..15],eth_type=0x800,nw_proto={number}",
            *_turned("ETH"),
            *_turned("IP"),
            *(_turned(ports) if ports else ()),
            f"load:{address:#x}->NXM_OF_IP_SRC[]",
        )
        yield {**match, "table": LOCAL_IPS, "metadata": address, "actions": f"learn({','.join(answer)})"}


def _turned(field: str) -> tuple[str, str]:
    """Source and destination are the other way round in an answer."""
    source, destination = f"NXM_OF_{field}_SRC[]", f"NXM_OF_{field}_DST[]"
    return f"{source}={destination}", f"{destination}={source}"
