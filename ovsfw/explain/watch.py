"""Listens to what a bridge drops, and tells of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ovsfw.compiler.recording import BURST, COPIED_BYTES, METERS, RATE, RECORDER
from ovsfw.errors import ConfigError
from ovsfw.explain.drops import Recorder
from ovsfw.explain.known import Known
from ovsfw.explain.question import find_end
from ovsfw.explain.usage import dropped
from ovsfw.switch import ages, packet_in
from ovsfw.switch.meters import Meters

_NO_METERS = "what is dropped is not taken down for `ovsfw drops`: {error}, without which nothing holds back a flood"


class Watch:
    """Its state is what was dropped last."""

    def __init__(self, path: Path, known: Known) -> None:
        """`path` is the management socket of the bridge."""
        self._path, self._known = path, known
        self.meters = Meters(path, METERS, RATE, BURST, _NO_METERS)
        self.recorder = Recorder()

    async def run(self) -> None:
        """Take down what comes.  Raises SwitchError when the bridge is away."""
        async for copy in packet_in.packets(self._path, RECORDER, COPIED_BYTES):
            identity = self._known.identity()
            if identity is not None:
                self.recorder.add(identity, copy, time.time())

    async def tell(self, args: Sequence[str]) -> str:
        """As JSON: the last drops, of one port if it is named, and how many were taken down of each kind.

        Also how many were taken down in all, and dropped in all.

        Raises OvsfwError.
        """
        identity = self._known.identity()
        if identity is None:
            raise ConfigError("nothing is known yet of the policy and the bridge")
        if not self.meters.found:
            raise ConfigError("nothing is taken down: --no-record-drops says so, or the switch has no meters")
        wanted = find_end(identity.policy, args[0]).port if args else None
        if args and wanted is None:
            raise ConfigError(f"{args[0]}: no port of the policy has this address")
        total = sum(line.packets for line in dropped(identity, await ages.read(self._path)))
        found = self.recorder.last(lambda name: wanted is None or name == wanted.id)
        return json.dumps(
            {
                # Flows are told up to half a second later of what the datapath's cache has dropped.
                "dropped": max(total, self.recorder.sampled),
                "sampled": self.recorder.sampled,
                "drops": [asdict(record) for record in found],
                "counts": [
                    {"endpoint": name, **kind._asdict(), "copies": copies}
                    for name, kinds in sorted(self.recorder.counts.items())
                    for kind, copies in sorted(kinds.items())
                    if wanted is None or name == wanted.id
                ],
            }
        )
