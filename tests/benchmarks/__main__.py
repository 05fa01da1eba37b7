"""Run the benchmarks and print, or write down, the table."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ovsfw import __version__
from ovsfw.cli import collect_less
from ovsfw.lab.vswitch import PrivateSwitch
from tests.benchmarks import daemon, datapath, growth, sync, updates
from tests.benchmarks.world import Row

PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- measured -->", "<!-- end of what was measured -->"
PARTS: dict[str, Callable[[PrivateSwitch, int], AsyncIterator[Row]]] = {
    "sync": sync.rows,
    "updates": updates.rows,
    "daemon": daemon.rows,
    "datapath": datapath.rows,
    "growth": growth.rows,
}


def main() -> int:
    """Exit 0 when every target was reached, 2 when one was not."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="pairs of each comparison (default: 5)")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE}")
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]!r}; there are {', '.join(PARTS)}")
    collect_less()
    rows = asyncio.run(_measure(args.parts or list(PARTS), args.times))
    if args.write:
        _write(rows, args.times)
    missed = [row.what for row in rows if row.reached is False]
    print(f"{len(rows)} measured, {len(missed)} targets missed" + "".join(f"\n  {what}" for what in missed))
    return 2 if missed else 0


async def _measure(parts: list[str], times: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="ovsfw-bench") as directory:
        switch = PrivateSwitch(Path(directory), f"bench-{os.getpid()}")
        switch.start()
        try:
            for part in parts:
                async for row in PARTS[part](switch, times):
                    mark = {True: "ok    ", False: "MISSED", None: "      "}[row.reached]
                    print(f"{mark} {row.what}: {row.measured}" + (f"  [{row.target}]" if row.target else ""))
                    sys.stdout.flush()
                    rows.append(row)
        finally:
            switch.stop()
    return rows


def _write(rows: list[Row], times: int) -> None:
    said = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True).stdout
    version = said.splitlines()[0].split()[-1]
    today = f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, {today}; medians of {times} pairs"
    lines = [BEGIN, f"ovsfw {__version__}, Open vSwitch {version} (userspace datapath), {machine}.", ""]
    lines += ["| what | target | measured | |", "|---|---|---|---|"]
    for row in rows:
        mark = {True: "reached", False: "missed", None: ""}[row.reached]
        lines.append(f"| {row.what} | {row.target} | {row.measured} | {mark} |")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + "\n".join(lines) + f"\n{END}" + rest.partition(END)[2])


sys.exit(main())
