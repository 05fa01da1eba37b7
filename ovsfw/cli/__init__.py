"""The command line: one file per family of commands.

Every command exits 0 when all is well, 1 on an error, and where it compares, 2 when there are differences.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

import ovsfw.cli.check as checking
from ovsfw import __version__
from ovsfw.cli import audit as auditing
from ovsfw.cli import bridge, compiling, completion, connections, db, drops, graph, lab, migrate, running, show, why
from ovsfw.errors import OvsfwError

FAMILIES = (checking, auditing, graph, compiling, bridge, connections, running, show, why, drops, db, migrate, lab)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="ovsfw",
        description="Security groups as OpenFlow conntrack flows on Open vSwitch, kept in sync.",
        epilog="Exit status: 0 all is well, 1 an error, 2 differences were found.",
    )
    top.add_argument("--version", action="version", version=f"ovsfw {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for family in FAMILIES:
        family.add(commands)
    completion.add(commands, top)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors go to stderr in one line each, never as a traceback."""
    _open_what_is_closed()
    collect_less()
    args = parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except OvsfwError as error:
        for line in str(error).splitlines():
            print(f"ovsfw: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ovsfw: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        _write_no_more()
        return 1
    except OSError as error:
        _write_no_more()
        print(f"ovsfw: {error}", file=sys.stderr)
        return 1
    return status


def collect_less() -> None:
    """Let Python look for garbage seldom, not at every 700 new objects.

    Policies and flows live long, and looking at them while they are made takes a third of the time to compile them.
    """
    gc.set_threshold(50_000, 20, 50)


def _open_what_is_closed() -> None:
    """A parent may start us without stdout or stderr (`>&-`); nothing else must get their numbers."""
    if sys.stdout is None or sys.stderr is None:
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - open until the end
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere


def _write_no_more() -> None:
    """What is left to write goes nowhere, or the interpreter would complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
