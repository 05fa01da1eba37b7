"""Small changes of a large policy, and a restart with nothing changed."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator

from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.reconciler import Reconciler
from tests.benchmarks.changes import KINDS, Change, strangers, with_ports
from tests.benchmarks.world import Row, bindings, bridge, milliseconds, policy

# Seconds; flow mods, where there is a target.
MEMBER_OR_RULE, PORT = 0.005, 0.020
MOST_FLOW_MODS = {"a member joins a group": 2, "a member leaves it": 2, "a rule is added to a group": 1}
# Members beside those of `large`, for about 100,000 flows.
MORE = 32000
LONGEST_RESTART = 1.0


async def rows(switch: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    """Each change is made `times` times, each a little different, on a policy that is in the switch already."""
    for name, change in KINDS.items():
        async for row in _changes(switch, name, change, times):
            yield row
    yield await _restart(switch, times)


async def _changes(switch: PrivateSwitch, name: str, change: Change, times: int) -> AsyncIterator[Row]:
    base = policy("large")
    now = base, bindings(base)
    latest = PORT if name.startswith("a port") else MEMBER_OR_RULE
    async with bridge(switch) as channel:
        reconciler = Reconciler(channel)
        took, worked, sent = [], [], []
        for number in range(times * 4):
            before, after = change(now, number)
            await reconciler.step(*before)
            began, cpu = time.perf_counter(), time.process_time()
            done = await reconciler.step(*after, settings_hold=latest is MEMBER_OR_RULE)
            took.append(time.perf_counter() - began)
            worked.append(time.process_time() - cpu)
            sent.append(len(done.flows) if done else 0)
    most, found = MOST_FLOW_MODS.get(name), max(sent)
    yield Row(
        f"large: {name}: flow mods",
        "" if most is None else f"<= {most}",
        str(found),
        None if most is None else found <= most,
    )
    median = statistics.median(took)
    yield Row(
        f"large: {name}: from event to commit reply (processor time of it)",
        f"<= {latest * 1000:.0f} ms",
        f"{milliseconds(median)} ({milliseconds(statistics.median(worked))})",
        median <= latest,
    )


async def _restart(switch: PrivateSwitch, times: int) -> Row:
    base = policy("large")
    grown, here = with_ports(base, *strangers(base, MORE)), bindings(base)
    async with bridge(switch) as channel:
        await Reconciler(channel).step(grown, here)
        took, worked, sent, flows = [], [], 0, 0
        for _ in range(times):
            again = Reconciler(channel)
            began, cpu = time.perf_counter(), time.process_time()
            change = await again.step(grown, here)
            took.append(time.perf_counter() - began)
            worked.append(time.process_time() - cpu)
            sent, flows = max(sent, len(change.flows) if change else 0), len(again.flows)
    median = statistics.median(took)
    return Row(
        f"restart, nothing changed, {flows:,} flows: flow mods; time (processor time of it)",
        "0; <= 1 s",
        f"{sent}; {milliseconds(median)} ({milliseconds(statistics.median(worked))})",
        sent == 0 and median <= LONGEST_RESTART,
    )
