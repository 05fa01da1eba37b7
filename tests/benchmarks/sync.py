"""The first sync: a policy in memory to a committed bundle, beside what `ovs-ofctl` takes for the same flows."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from ovsfw.compiler import Bindings, compile_policy
from ovsfw.compiler.stats import stats
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.text import format_flow
from ovsfw.policy.model import Policy
from ovsfw.reconciler import Reconciler
from tests.benchmarks.world import BRIDGE, Row, bindings, bridge, paired, policy, seconds

SHAPES = ("small", "medium", "large", "biggroup", "ranges", "stress")


async def rows(switch: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    """Flows and first sync of every shape."""
    for name in SHAPES:
        measured = policy(name)
        here = bindings(measured)
        program = compile_policy(measured, here)
        counted = stats(measured, here, program)
        yield Row(
            f"{name}: flows",
            f"<= {counted.budget}",
            f"{counted.flows} (ports x rule masks: {counted.multiplied})",
            counted.flows <= counted.budget,
        )
        with tempfile.NamedTemporaryFile("w", suffix=".flows") as file:
            file.writelines(f"{format_flow(flow)}\n" for flow in program.flows.flows())
            file.flush()
            ours, limit = partial(_ours, switch, measured, here), partial(_limit, switch, Path(file.name))
            pairs = await paired(ours, limit, times)
        yield Row(
            f"{name}: first sync, compile included, against ovs-ofctl --bundle add-flows of the same flows",
            "<= 2" if name == "large" else "",
            str(pairs),
            pairs.ratio <= 2 if name == "large" else None,
        )


async def _ours(switch: PrivateSwitch, measured: Policy, here: Bindings) -> float:
    async with bridge(switch) as channel:
        reconciler = Reconciler(channel)
        return await seconds(lambda: reconciler.step(measured, here))


async def _limit(switch: PrivateSwitch, file: Path) -> float:
    async with bridge(switch):

        async def add() -> None:
            switch.ofctl("--bundle", "add-flows", BRIDGE, str(file))

        return await seconds(add)
