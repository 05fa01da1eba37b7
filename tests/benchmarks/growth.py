"""How first sync, a small change and memory grow from `large` to eight times that, as curves with their exponents.

Each size is measured in a process of its own, so that its memory is its own: `python -m tests.benchmarks.growth DIR N`.
"""

from __future__ import annotations

import asyncio
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from ovsfw.cli import collect_less
from ovsfw.lab import shapes
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.policy.paged import Paged
from ovsfw.reconciler import Reconciler
from ovsfw.switch.channel import Channel
from tests.benchmarks.changes import KINDS
from tests.benchmarks.plot import Curve, plot
from tests.benchmarks.world import BRIDGE, Row, bindings

SIZES = (1, 2, 4, 8)
PICTURE = Path("docs/growth.svg")
# An exponent of 0 does not grow, of 1 grows as the policy does.
FLAT, LINEAR = 0.3, 1.1
CHANGES = ("a member joins a group", "a rule is added to a group", "a port is plugged")
SYNC, MEMORY = "first sync", "memory"
_REPEATS = 10


async def rows(switch: PrivateSwitch, _times: int) -> AsyncIterator[Row]:
    """One row for each curve; draws the picture."""
    measured: dict[str, list[float]] = {}
    for size in SIZES:
        switch.add_bridge(BRIDGE)
        command = (sys.executable, "-m", "tests.benchmarks.growth", str(switch.rundir), str(size))
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        switch.vsctl("del-br", BRIDGE)
        for name, value in json.loads(said).items():
            measured.setdefault(name, []).append(value)
    curves = [Curve(name, [value / values[0] for value in values]) for name, values in measured.items()]
    _draw(curves)
    for name, values in measured.items():
        most = LINEAR if name in (SYNC, MEMORY) else FLAT
        grows = exponent(values)
        unit = "MiB" if name == MEMORY else "ms"
        yield Row(
            f"{name} at {', '.join(f'{size}x' for size in SIZES)} of large: exponent",
            f"<= {most}",
            f"{grows:.2f} ({', '.join(f'{value:,.1f}' for value in values)} {unit})",
            grows <= most,
        )


def _draw(curves: list[Curve]) -> None:
    PICTURE.write_text(plot("cost, as a multiple of that at `large`", SIZES, curves))


def exponent(values: list[float]) -> float:
    """The slope of the line through the logarithms."""
    slope, _ = statistics.linear_regression([math.log(size) for size in SIZES], [math.log(value) for value in values])
    return slope


def grown(size: int) -> Policy:
    """`large`, so many times."""
    name = f"large x {size}"
    found = parse(json.dumps(shapes.sized(local=500 * size, remote=10000 * size, groups=100 * size, rules=30)), name)
    return replace(found, ports=Paged(found.ports))


async def _measure(rundir: Path, size: int) -> dict[str, float]:
    """Processor time in ms, for the machine may be busy, and the peak of memory in MiB."""
    policy = grown(size)
    now = policy, bindings(policy)
    channel = Channel(timeout=300)
    await channel.connect(rundir / f"{BRIDGE}.mgmt")
    reconciler = Reconciler(channel)
    began = time.process_time()
    await reconciler.step(*now)
    found = {SYNC: (time.process_time() - began) * 1000}
    # What the policy's reader needed is gone again.
    found[MEMORY] = _resident()
    for name in CHANGES:
        took = []
        for number in range(_REPEATS):
            before, after = KINDS[name](now, number)
            await reconciler.step(*before, settings_hold=True)
            began = time.process_time()
            await reconciler.step(*after, settings_hold=True)
            took.append((time.process_time() - began) * 1000)
        found[name] = statistics.median(took)
    channel.close()
    return found


def _resident() -> float:
    """MiB that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


if __name__ == "__main__":
    collect_less()
    print(json.dumps(asyncio.run(_measure(Path(sys.argv[1]), int(sys.argv[2])))))
