"""`ovsfw drops`: what the bridge has dropped last, by the memory of the daemon."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from ovsfw.cli.columns import columns
from ovsfw.cli.options import add_bridge, add_format, add_rundir
from ovsfw.cli.status import ask_daemon

PAUSE = 1.0
COLUMNS = ("endpoint", "side", "table", "copies", "reason")


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.add_argument("port", nargs="?", metavar="PORT", help="only those of one port: its id, name, MAC or address")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="go on with what is dropped from now on, until Ctrl-C")
    how.add_argument(
        "--count",
        action="store_true",
        help="how many, by endpoint, side and reason, since the daemon began; of copies, which a meter limits to 20 a "
        "second for each reason, so these are the least (`ovsfw show drops` counts all, for all endpoints together)",
    )
    add_bridge(command)
    add_rundir(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them, the oldest first, or how many there were."""
    if args.count:
        return _count(args)
    seen = 0.0
    while True:
        said = _asked(args)
        new = [record for record in said["drops"] if record["when"] > seen]
        seen = max((record["when"] for record in new), default=seen)
        for record in new:
            print(json.dumps(record) if args.format == "json" else _text(record), flush=True)
        if not args.follow:
            break
        time.sleep(PAUSE)
    if args.format == "text":
        print(_in_all(said))
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(asyncio.run(ask_daemon(args, "drops", *([args.port] if args.port else []))))
    return said


def _count(args: argparse.Namespace) -> int:
    """The most first."""
    said = _asked(args)
    rows = sorted(said["counts"], key=lambda row: -row["copies"])
    if args.format == "json":
        print(json.dumps(rows, indent=2))
        return 0
    for line in columns(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]):
        print(line)
    print(_in_all(said))
    return 0


def _in_all(said: dict[str, Any]) -> str:
    return f"({said['sampled']} copies were taken, of {said['dropped']} packets that the flows have dropped)"


def _text(record: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record["when"]))
    who = record["endpoint"] or "nobody"
    return f"{clock}  {who:<12}  {record['side']:<7}  {record['packet']}  [{record['table']}: {record['reason']}]"
