"""The daemon's loop on a bridge with 500 ports: a port is plugged, somebody deletes flows; and its memory."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ovsfw.compiler.pipeline import EGRESS_POLICY
from ovsfw.lab.shapes import shape
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.policy.model import Policy
from ovsfw.record import State
from ovsfw.sources.source import SourceState
from ovsfw.switch.ovsdb import Ovsdb
from ovsfw.sync import Place, Sync
from tests.benchmarks.world import BRIDGE, Row, milliseconds, policy
from tests.running import Process

LATEST_PLUG, LATEST_REPAIR, LATEST_RETURN, MOST_MEMORY = 0.020, 0.100, 2, 150
PATIENCE = 120.0


class _Given:
    """A source whose policy never changes."""

    def __init__(self, given: Policy) -> None:
        self._policy = given

    async def start(self, wake: Callable[[], None]) -> None:
        """Known at once."""

    def policy(self) -> Policy | None:
        return self._policy

    def state(self) -> SourceState:
        return SourceState("given")

    def plugged(self, port_ids: frozenset[str]) -> None:
        """All of them are known."""

    def reload(self) -> None:
        """There is nothing else."""

    async def applied(self, policy: Policy, ports: frozenset[str]) -> None:
        """Nobody waits for it."""

    async def close(self) -> None:
        """Nothing is open."""


async def rows(_: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    """On a switch of its own, whose ports are dummies: five hundred cost it nothing."""
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="ovsfw-bench") as directory:
        options = ("--enable-dummy=override", "--disable-system")
        switch = PrivateSwitch(Path(directory), f"bench-daemon-{os.getpid()}", options)
        switch.start()
        try:
            switch.vsctl(*_bridge([name for name in policy("large").ports if name.startswith("local-")][:-times]))
            async for row in _loop(switch, times):
                yield row
            yield await _memory(switch, Path(directory))
        finally:
            switch.stop()


def _bridge(names: list[str]) -> list[str]:
    words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=dummy", "fail_mode=secure"]
    for name in names:
        words += _plug(name)
    return words


def _plug(name: str) -> list[str]:
    return [
        "--", "add-port", BRIDGE, name,
        "--", "set", "interface", name, "type=dummy", f"external_ids:iface-id={name}",
    ]  # fmt: skip


async def _loop(switch: PrivateSwitch, times: int) -> AsyncIterator[Row]:
    sync = Sync(_Given(policy("large")), Place(switch.db, BRIDGE))
    running = asyncio.create_task(sync.run())
    rest = [name for name in policy("large").ports if name.startswith("local-")][-times:]
    seen = Ovsdb()
    try:
        await seen.connect(switch.db)
        await _until(lambda: sync.record.steps > 0)
        took = [await _plugged(switch, sync, seen, name) for name in rest]
        yield _row("large: a port is plugged: from OVSDB row to commit reply", "<= 20 ms", took, LATEST_PLUG)
        took = [await _repaired(switch, sync) for _ in range(times)]
        what = "somebody deletes 500 of our flows: from the start of ovs-ofctl until they are back"
        yield _row(what, "<= 100 ms", took, LATEST_REPAIR)
        took = [await _restarted(switch, sync) for _ in range(times)]
        what = f"ovs-vswitchd is killed and started again: until {len(sync.reconciler.flows):,} flows are back"
        yield _row(what, "<= 2 s", took, LATEST_RETURN)
    finally:
        seen.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _row(what: str, target: str, took: list[float], latest: float) -> Row:
    """The median of some times, all in seconds."""
    median = statistics.median(took)
    return Row(what, target, milliseconds(median), median <= latest)


async def _plugged(switch: PrivateSwitch, sync: Sync, seen: Ovsdb, name: str) -> float:
    """Both replicas of OVSDB live in this loop and hear of the row at the same time."""
    changes = sync.record.changes
    await asyncio.to_thread(switch.vsctl, "--no-wait", *_plug(name)[1:])

    def is_there() -> bool:
        return any(bound.port_id == name for bound in seen.snapshot(BRIDGE).endpoints)

    while not is_there():
        seen.changed.clear()
        await asyncio.wait_for(seen.changed.wait(), PATIENCE)
    began = time.perf_counter()
    await _until(lambda: sync.record.changes > changes)
    return time.perf_counter() - began


async def _repaired(switch: PrivateSwitch, sync: Sync) -> float:
    """From the start of ovs-ofctl, which takes some milliseconds itself."""
    repairs = sync.record.repairs
    began = time.perf_counter()
    await asyncio.to_thread(switch.ofctl, "del-flows", BRIDGE, f"table={EGRESS_POLICY.number}")
    await _until(lambda: sync.record.repairs > repairs)
    return time.perf_counter() - began


async def _restarted(switch: PrivateSwitch, sync: Sync) -> float:
    """From the moment when ovs-vswitchd has its bridges again; the daemon may have begun before that."""
    connects = sync.record.connects
    await asyncio.to_thread(switch.kill_vswitchd)
    await asyncio.to_thread(switch.start_vswitchd)
    began = time.perf_counter()
    await _until(lambda: sync.record.connects > connects and sync.record.state is State.IN_SYNC)
    return time.perf_counter() - began


async def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.0005)


async def _memory(switch: PrivateSwitch, directory: Path) -> Row:
    file = directory / "large.json"
    file.write_text(json.dumps(shape("large")))
    daemon = Process(switch, file)
    try:
        await asyncio.to_thread(daemon.in_sync)
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()  # noqa: ASYNC240 - not a real file
    finally:
        daemon.process.terminate()
        daemon.process.wait()
    sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("Vm")}
    return Row(
        "large: memory of the daemon, policy from a file (at its peak, while it was read)",
        f"<= {MOST_MEMORY} MiB",
        f"{sizes['VmRSS']} MiB ({sizes['VmHWM']} MiB)",
        sizes["VmRSS"] <= MOST_MEMORY,
    )
