"""Meters that flows refer to: they hold copies of packets back, and a switch may have none."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ovsfw.switch import packet_in

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Meters:
    """Some meters of one rate; `found` is whether the switch has them, None before anybody has asked.

    `path` is the management socket of the bridge, `rate` and `burst` are packets a second.  `without` is what to warn
    of where there are none; {error} in it is why.
    """

    path: Path
    numbers: Iterable[int]
    rate: int
    burst: int
    without: str
    found: bool | None = field(default=None, init=False)

    async def are_there(self, *, anew: bool) -> bool:
        """Whether flows may refer to them; made where they are missing.

        `anew`: the switch may have lost what it had.  Raises SwitchError when it is away.
        """
        if anew or self.found is None:
            self.found = await self._make()
        return self.found

    async def _make(self) -> bool:
        try:
            await packet_in.add_meters(self.path, self.numbers, self.rate, self.burst)
        except packet_in.MeterRefusedError as error:
            if self.found is not False:
                logger.warning("%s", self.without.format(error=error))
            return False
        return True
