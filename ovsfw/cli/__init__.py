"""The command line: one file per family of commands.

Every command exits 0 when all is well, 1 on an error, and where it compares, 2 when there are differences.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from pathlib import Path

from ovsfw import __version__
from ovsfw.errors import OvsfwError

# The commands, in the order of the help.  Each has a module of its name here, whose `add` gives its parser the options.
COMMANDS = {
    "check": "is the policy document right?",
    "audit": "a least-privilege review of a policy: what is open too wide, and what does nothing",
    "graph": "draw a picture of who may talk to whom: groups, and the rules between them as arrows",
    "compile": "print the flows of a policy; no switch is needed",
    "diff": "what apply would change: -/+ flows, live connections.  Exit 0 nothing, 2 differences, 1 error",
    "apply": "make the bridge hold exactly the policy, in one atomic bundle, and exit",
    "verify": "does the bridge hold exactly the policy?  Exit 0 yes, 2 drift, 1 error",
    "confirm": "keep the change that `apply --confirm` has made and that waits",
    "clear": "take every flow of ovsfw off the bridge",
    "connections": "live connections, with the rules that let each in",
    "run": "the daemon: keep the bridge as the policy says, in the foreground, until it is stopped; flows stay",
    "status": "how the running daemon is.  Exit 0 in sync, 2 it runs but is not, 1 it does not run",
    "show": "endpoints of this host, groups, rules with hits and when they were last hit, and what is dropped",
    "why": "what the policy says of a connection and by which rule, and what the switch does with it",
    "drops": "what was dropped last: when, whose, on which side, why; by the memory of the daemon",
    "db": "the policy database: start, import, export, show, status, change objects, --wait=hosts",
    "migrate": "leave another firewall driver of Neutron's agent: iptables_hybrid or openvswitch",
    "lab": "VMs as network namespaces on this machine: up, matrix, selftest, exec, demo, shape, cluster, down",
    "completion": "print what a shell needs to complete commands and options",
}


def parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with one command `wanted`, of the others only what they are about.

    Importing what all of them need takes a second.
    """
    top = argparse.ArgumentParser(
        prog="ovsfw",
        description="Security groups as OpenFlow conntrack flows on Open vSwitch, kept in sync.",
        epilog="Exit status: 0 all is well, 1 an error, 2 differences were found.",
    )
    top.add_argument("--version", action="version", version=f"ovsfw {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if wanted in (None, name):
            importlib.import_module(f"{__name__}.{name}").add(command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors go to stderr in one line each, never as a traceback."""
    _open_what_is_closed()
    collect_less()
    words = sys.argv[1:] if argv is None else argv
    # No option of `ovsfw` itself takes a value.
    args = parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
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
