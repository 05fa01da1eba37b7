"""`status`: how the daemon is."""

from __future__ import annotations

import argparse
import asyncio
import json

from ovsfw.cli.options import add_bridge, add_format, add_rundir, rundir
from ovsfw.errors import SwitchError
from ovsfw.status_text import render
from ovsfw.switch.rundir import find_control_socket
from ovsfw.switch.unixctl import unixctl

NOT_WELL = 2


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    add_bridge(command)
    add_rundir(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask the daemon."""
    found = json.loads(asyncio.run(ask_daemon(args, "status", "json")))
    print(json.dumps(found, indent=2) if args.format == "json" else render(found), end="")
    return 0 if found["healthy"] else NOT_WELL


async def ask_daemon(args: argparse.Namespace, command: str, *words: str) -> str:
    """What the running daemon answers.  Raises SwitchError when there is none, or with its complaint."""
    where = rundir(args)
    control = find_control_socket("ovsfw", where)
    if control is None:
        raise SwitchError(f"no daemon runs in {where}; start it with: ovsfw run --policy FILE (or give its --rundir)")
    return await unixctl(control, command, *words)
