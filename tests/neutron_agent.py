"""The flows that Neutron's agent has on br-int around a firewall, as far as they matter to one.

Taken from what `ovs-ofctl dump-flows` shows of an agent of Neutron 29; the tracking and the register of the last lines
are what an extension (local IPs) and the flows of others do.
"""

from __future__ import annotations

from ovsfw.lab.vswitch import PrivateSwitch

FLOWS = """
table=0,priority=65535,dl_vlan=4095,actions=drop
table=0,priority=0,actions=resubmit(,58)
table=23,priority=0,actions=drop
table=24,priority=0,actions=drop
table=30,priority=0,actions=resubmit(,58)
table=31,priority=0,actions=resubmit(,58)
table=58,priority=0,actions=resubmit(,59)
table=59,priority=0,actions=resubmit(,60)
table=60,priority=1,actions=NORMAL
table=62,priority=3,actions=NORMAL
table=0,priority=200,ip,ct_state=-trk,actions=load:7->NXM_NX_REG6[],ct(table=0)
table=0,priority=200,ipv6,ct_state=-trk,actions=load:7->NXM_NX_REG6[],ct(table=0)
"""


def add_agent_flows(switch: PrivateSwitch, bridge: str) -> None:
    """Beside what is there."""
    switch.ofctl("add-flows", bridge, "-", stdin=FLOWS)
