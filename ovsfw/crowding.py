"""The alarm for a datapath that is crowded with masks: it is slow for everybody then, and somebody may have meant it.

A sender that varies addresses and ports makes the switch cache flows with ever other masks (CVE-2019-25076, "tuple
space explosion"); how many one sender can make follows from the rules (`ovsfw compile --stats`).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.switch import megaflows
from ovsfw.switch.megaflows import Megaflows

logger = logging.getLogger(__name__)

# Entries in the kernel datapath's cache of masks, unless it is told otherwise (net/openvswitch/flow_table.c,
# MC_DEFAULT_HASH_ENTRIES).
BUDGET = 256
# Seconds.
EVERY = 30.0

_CROWDED = "{masks} masks in the datapath of {bridge}, over the budget of {budget}: packets that are new to it are slow"
_WELL = "%d masks in the datapath of %s: within the budget of %d again"


class Crowding:
    """Its state is what was seen last, None while nobody can be asked, and whether that was too much."""

    def __init__(self, bridge: Path, budget: int = BUDGET) -> None:
        """`bridge` is its management socket."""
        self.budget, self._bridge = budget, bridge
        self.seen: Megaflows | None = None
        self.crowded = False

    @property
    def warning(self) -> str:
        """What the operator should know; empty for nothing."""
        if self.seen is None or not self.crowded:
            return ""
        return _CROWDED.format(masks=self.seen.masks, bridge=self._bridge.stem, budget=self.budget)

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            try:
                await self.look()
            except SwitchError:
                self.seen = None
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Look now.  Raises SwitchError."""
        self.seen = found = await megaflows.read(self._bridge, self.budget)
        before, self.crowded = self.crowded, found.masks > self.budget
        if self.crowded and not before:
            logger.warning("%s", self.warning)
        elif before and not self.crowded:
            logger.info(_WELL, found.masks, self._bridge.stem, self.budget)
