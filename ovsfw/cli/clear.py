"""`clear`: take ovsfw off a bridge."""

from __future__ import annotations

import argparse
import asyncio

from ovsfw.apply import clear
from ovsfw.cli.bridge import More, report
from ovsfw.cli.options import add_bridge, add_format


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = (
        f"{command.description}  Its endpoints are then unfiltered, or cut off, as the bridge's remaining flows say.  "
        "Flows of others stay."
    )
    add_bridge(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Take it off."""
    report(args, asyncio.run(clear(args.db, args.bridge)), More(), verb="changed", show_flows=False)
    return 0
