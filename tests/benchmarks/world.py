"""A private switch to measure on, policies of known size, and pairs of measurements."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from ovsfw.compiler import Binding, Bindings
from ovsfw.compiler.bindings import Uplink
from ovsfw.lab.shapes import shape
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.policy.paged import Paged
from ovsfw.switch.channel import Channel

BRIDGE = "br-int"
UPLINK = 9999


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, the target, the result, and whether it was reached.

    `reached` is None where there is a number to know but no target.
    """

    what: str
    target: str
    measured: str
    reached: bool | None = None


@lru_cache
def policy(name: str) -> Policy:
    """The policy of a shape, with its ports in pages, as a daemon has it that follows a database."""
    found = parse(json.dumps(shape(name)), name)
    return replace(found, ports=Paged(found.ports))


def bindings(of: Policy) -> Bindings:
    """Its local ports here, by their order."""
    here = sorted(name for name in of.ports if name.startswith("local-"))
    return Bindings(tuple(Binding(name, number + 1) for number, name in enumerate(here)), (Uplink(UPLINK),))


@asynccontextmanager
async def bridge(switch: PrivateSwitch) -> AsyncIterator[Channel]:
    """An empty bridge and a channel to it."""
    switch.add_bridge(BRIDGE)
    channel = Channel(timeout=120)
    try:
        await channel.connect(switch.rundir / f"{BRIDGE}.mgmt")
        yield channel
    finally:
        channel.close()
        await asyncio.sleep(0)
        switch.vsctl("del-br", BRIDGE)


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long it takes, by the clock on the wall."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Pairs:
    """Two things measured in turn; what counts is the ratio pair by pair, because the machine's speed drifts."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> float:
        """Median of ours / theirs."""
        return statistics.median(one / other for one, other in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return f"{self.ratio:.2f} ({milliseconds(ours)} against {milliseconds(theirs)})"


def milliseconds(value: float) -> str:
    """`12 ms`, `1.2 s`, by size."""
    if value >= 1:
        return f"{value:.1f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.02 else f"{value * 1000:.2f} ms"


async def paired(ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], times: int) -> Pairs:
    """Measure two things in turn."""
    measured = [(await ours(), await theirs()) for _ in range(times)]
    return Pairs([one for one, _ in measured], [other for _, other in measured])
