"""`ovsfw drops`: what the bridge has dropped last, by the memory of the daemon."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from ovsfw.cli.options import add_bridge, add_format, add_rundir
from ovsfw.cli.status import ask_daemon

PAUSE = 1.0


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.add_argument("port", nargs="?", metavar="PORT", help="only those of one port: its id, name, MAC or address")
    command.add_argument("--follow", action="store_true", help="go on with what is dropped from now on, until Ctrl-C")
    add_bridge(command)
    add_rundir(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them, the oldest first."""
    words = [args.port] if args.port else []
    seen = 0.0
    while True:
        said = json.loads(asyncio.run(ask_daemon(args, "drops", *words)))
        new = [record for record in said["drops"] if record["when"] > seen]
        seen = max((record["when"] for record in new), default=seen)
        for record in new:
            print(json.dumps(record) if args.format == "json" else _text(record), flush=True)
        if not args.follow:
            break
        time.sleep(PAUSE)
    if args.format == "text":
        print(f"({said['sampled']} copies were taken, of {said['dropped']} packets that the flows have dropped)")
    return 0


def _text(record: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(record["when"]))
    who = record["endpoint"] or "nobody"
    return f"{clock}  {who:<12}  {record['side']:<7}  {record['packet']}  [{record['table']}: {record['reason']}]"
