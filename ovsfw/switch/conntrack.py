"""The connections of one bridge: read them, block them, let them live again, forget them one by one.

They are read and forgotten by ovs-vswitchd's commands, which say the same about the userspace and the kernel datapath
(ovs-vswitchd(8), dpctl commands).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from ovsfw.errors import SwitchError
from ovsfw.openflow.tracked import Tracked, Tuple, parse
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl

_ICMP = frozenset({1, 58})
_GONE = "No such file or directory"
_ROUNDS = 3
# What it says when bridges of this host have datapaths of several types; then time must tell.  Rounds begin every half
# second (vswitchd.conf.db(5), other_config:max-revalidator).
_SEVERAL = "multiple udpifs"
_ROUND_SECONDS = 1.0
# Entries between two looks at other work: parsing 50,000 takes half a second.
_BATCH_BYTES = 1 << 20


class Conntrack:
    """The connection tracker behind a bridge.  Raises SwitchError when ovs-vswitchd is away or refuses."""

    def __init__(self, rundir: Path, bridge: str) -> None:
        self._rundir = rundir
        self._bridge = bridge

    async def read(self, zones: Collection[int], *, counters: bool = False) -> list[Tracked]:
        """Every entry in some zones, in no order; `counters` adds timeouts, and packets where they are counted."""
        if not zones:
            return []
        options = ["-s"] if counters else []
        zone = [f"zone={next(iter(zones))}"] if len(zones) == 1 else []
        where = await self._datapath(await self._datapaths())
        text = await self._ask("dpctl/dump-conntrack", "-m", *options, where, *zone) or ""
        found: list[Tracked] = []
        for chunk in _chunks(text):
            found += [entry for entry in parse(chunk) if entry.zone in zones]
            await asyncio.sleep(0)
        return found

    async def count(self, zone: int) -> int:
        """How many entries a zone has."""
        where = await self._datapath(await self._datapaths())
        text = await self._ask("dpctl/ct-stats-show", where, f"zone={zone}") or ""
        totals = (line.split()[-1] for line in text.splitlines() if line.strip().startswith("Total:"))
        return int(next(totals, "0"))

    async def forget(self, entries: Collection[Tracked]) -> None:
        """Remove entries, each by its exact tuple; one that is gone already is fine.

        Those of ICMP stay: Open vSwitch 3.1 dies of the tuple of an ICMPv6 echo request (reverse_icmp_type() in its
        lib/conntrack.c knows only ICMP of IPv4).  They are forgotten half a minute after their last packet.
        """
        doomed = [entry for entry in entries if entry.key.protocol not in _ICMP]
        if doomed:
            datapaths = await self._datapaths()
            # Open vSwitch 3.1 does not understand a datapath's name before a tuple, so it is given only in need.
            where = [await self._datapath(datapaths)] if len(datapaths) > 1 else []
            for entry in doomed:
                await self._ask("dpctl/flush-conntrack", *where, f"zone={entry.zone}", _exact(entry.key), unless=_GONE)

    async def settled(self) -> None:
        """Wait until no cached decision is older than this call.

        Flows take effect at once for packets that are looked up; what the datapath has cached is revised by and by, in
        rounds.  A round that is under way may have begun before, and so may a decision that is just being cached; so
        this waits for the end of three.
        """
        for _ in range(_ROUNDS):
            if await self._ask("revalidator/wait", unless=_SEVERAL) is None:
                await asyncio.sleep(_ROUND_SECONDS)

    async def _datapath(self, names: list[str]) -> str:
        """The bridge's own; there is one for each type that some bridge has."""
        if len(names) == 1:
            return names[0]
        name = ""
        for line in (await self._ask("dpif/show") or "").splitlines():
            if not line.startswith(" "):
                name = line.split(":")[0]
            elif line.strip() == f"{self._bridge}:":
                return name
        raise SwitchError(f"ovs-vswitchd does not name the datapath of bridge {self._bridge}; is it being deleted?")

    async def _datapaths(self) -> list[str]:
        return (await self._ask("dpctl/dump-dps") or "").split()

    async def _ask(self, command: str, *args: str, unless: str = "") -> str | None:
        """What is answered; None when it is refused with words that have `unless` among them."""
        try:
            return await unixctl(control_socket(rundir=self._rundir), command, *args)
        except SwitchError as error:
            if unless and unless in str(error):
                return None
            raise


def _chunks(text: str) -> list[str]:
    """Cut at the ends of lines."""
    chunks, at = [], 0
    while at < len(text):
        end = text.find("\n", at + _BATCH_BYTES)
        end = len(text) if end < 0 else end + 1
        chunks.append(text[at:end])
        at = end
    return chunks


def _exact(key: Tuple) -> str:
    """The tuple as ovs-vswitchd takes it (ovs-dpctl(8), flush-conntrack); all of it, or more than one would go."""
    ip = "ct_ipv6" if ":" in key.source else "ct_nw"
    terms = [f"{ip}_src={key.source}", f"{ip}_dst={key.destination}", f"ct_nw_proto={key.protocol}"]
    terms += [f"ct_tp_src={key.source_port}", f"ct_tp_dst={key.destination_port}"]
    return ",".join(terms)
