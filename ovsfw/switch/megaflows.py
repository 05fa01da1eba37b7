"""How many megaflows and masks the datapath of a bridge has."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ovsfw.openflow.megaflow import MaskCount, flows_and_masks
from ovsfw.switch.limits import datapath
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl

# Lines between two looks at other work.
_BATCH = 500


class Megaflows(NamedTuple):
    """How many flows there are, and how many masks at the most that one packet is compared with."""

    flows: int
    masks: int


async def read(bridge: Path, enough: int) -> Megaflows:
    """Of the bridge with this management socket.

    The userspace datapath does not count its masks, and looking at every flow takes a second for some ten thousand;
    that is done only where there are more than `enough` flows: there are no more masks than flows.  Raises SwitchError.
    """
    control = control_socket(rundir=bridge.parent)
    where = await datapath(control, bridge.stem)
    flows, masks = flows_and_masks(await unixctl(control, "dpctl/show", where))
    if masks is None and flows > enough:
        lines = iter((await unixctl(control, "dpctl/dump-flows", "-m", where)).splitlines())
        count = MaskCount()
        while batch := list(islice(lines, _BATCH)):
            count.add(batch)
            await asyncio.sleep(0)
        # Meanwhile some have come and gone: both numbers are of one look.
        flows, masks = count.flows, count.most
    return Megaflows(flows, flows if masks is None else masks)
