"""`verify`: does a bridge hold exactly a policy?"""

from __future__ import annotations

import argparse
import asyncio

from ovsfw.apply import compare
from ovsfw.cli.bridge import DIFFERENT, More, outranked, report
from ovsfw.cli.options import add_bridge, add_format, add_policy
from ovsfw.cli.policy import policy_of


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    add_policy(command)
    add_bridge(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show drift."""
    comparison = asyncio.run(compare(policy_of(args), args.db, args.bridge))
    warnings = outranked(comparison)
    report(args, comparison.change, More((*comparison.warnings, *warnings)), verb="drifted")
    return DIFFERENT if comparison.change or warnings else 0
