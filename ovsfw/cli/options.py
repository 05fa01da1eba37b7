"""Options that several commands share, so that they are the same everywhere."""

from __future__ import annotations

import argparse
import sys

from ovsfw.policy.model import Policy
from ovsfw.sources.file import read_document, read_policy
from ovsfw.switch.rundir import default_database


def add_policy(command: argparse.ArgumentParser) -> None:
    """--policy FILE and --no-assertions."""
    command.add_argument("--policy", required=True, metavar="FILE", help="the policy document, YAML or JSON")
    command.add_argument(
        "--no-assertions", action="store_true", help="go on when assertions of the document do not hold; only warn"
    )


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy that --policy names.  Raises PolicyError, also for assertions, unless --no-assertions."""
    if not args.no_assertions:
        return read_policy(args.policy)
    document = read_document(args.policy)
    for failure in document.failures(document.judge()):
        print(f"ovsfw: warning: IGNORED because of --no-assertions: {failure}", file=sys.stderr)
    return document.policy


def add_bridge(command: argparse.ArgumentParser) -> None:
    """--bridge and --db."""
    command.add_argument("--bridge", default="br-int", metavar="BR", help="the bridge (default: br-int)")
    command.add_argument(
        "--db",
        default=default_database(),
        metavar="DB",
        help="the OVSDB of this host, as ovs-vsctl has it (default: %(default)s; OVS_RUNDIR is honoured)",
    )


def add_format(command: argparse.ArgumentParser) -> None:
    """--format."""
    command.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def add_rundir(command: argparse.ArgumentParser) -> None:
    """--rundir."""
    command.add_argument(
        "--rundir",
        metavar="DIR",
        help="where the daemon's pid file and control socket are (default: the run directory of Open vSwitch)",
    )
