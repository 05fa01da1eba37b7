"""`confirm`: keep a change that is on trial."""

from __future__ import annotations

import argparse
import asyncio

from ovsfw.cli.options import add_bridge
from ovsfw.confirm import confirm


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    add_bridge(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Keep it."""
    asyncio.run(confirm(args.db, args.bridge))
    print(f"{args.bridge}: confirmed")
    return 0
