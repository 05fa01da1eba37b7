"""Where the filter hangs in a bridge: the one flow that leads into it, and the way out.

Alone on a bridge, the filter takes every packet in table 0, and what leaves goes out by the switch's own forwarding.
Inside another program's pipeline it takes every packet that comes to that program's hook table, and gives what leaves
back to the flows which that program has there: they see it as if there were no filter.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import load, to
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.openflow.action import NORMAL, Action, CtClear, Resubmit
from ovsfw.openflow.flow import Flow, Key

HOOK_COOKIE = cookie(Reason.HOOK)
LOCAL_IPS = 140
"""A table of others, too: that of the extension `ovsfw_local_ip` of Neutron's agent (see `ovsfw.neutron.local_ips`)."""


@dataclass(frozen=True, slots=True)
class Hook:
    """The number of the hook table; whether it is another program's; and the VLANs of ports that are not ready yet.

    `inside` says that the flows before may have sent packets through conntrack and put them into a VLAN, and that the
    flows behind want what leaves.  An endpoint whose VLAN is in `unwired` passes nothing, as if nobody knew it.
    """

    table: int = 0
    inside: bool = False
    unwired: frozenset[int] = frozenset()

    def flows(self) -> Iterator[Flow]:
        """The way in; packets that have been through the filter do not match."""
        table = replace(p.HOOK, number=self.table)
        if self.inside:
            match = (p.PASSED(0, p.PASSED_BIT),)
            yield table.flow(Priority.HOOK, match, (CtClear(), to(p.CLASSIFY)), HOOK_COOKIE)
        else:
            yield table.flow(Priority.HOOK, (), (to(p.CLASSIFY),), HOOK_COOKIE)

    @property
    def out(self) -> tuple[Action, ...]:
        """What becomes of a packet that leaves the filter and is for no endpoint of this host."""
        if not self.inside:
            return (NORMAL,)
        return (*self.last, load(p.PASSED, p.PASSED_BIT), Resubmit(self.table))

    @property
    def last(self) -> tuple[Action, ...]:
        """What others do to a packet that has been let through, before it goes on."""
        return (Resubmit(LOCAL_IPS),) if self.inside else ()


STANDALONE = Hook()
NEUTRON = Hook(60, inside=True, unwired=frozenset({0, 4095}))
"""TRANSIENT_TABLE of Neutron's agent (neutron_lib.plugins.ml2.ovs_constants); behind it is NORMAL.

That agent gives each port the VLAN of its network; before, it has none, or DEAD_VLAN_TAG.
"""


def hook_of(flows: Container[Key]) -> Hook:
    """Where the filter that has these flows hangs; alone in its bridge, unless they say otherwise."""
    return NEUTRON if all(flow.key in flows for flow in NEUTRON.flows()) else STANDALONE
