"""`run` and `status`: the daemon, and how it is."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from ovsfw import logs
from ovsfw.apply import rundir_of
from ovsfw.cli.options import add_bridge, add_format, add_rundir, add_tls, tls_of
from ovsfw.compiler import NEUTRON, STANDALONE
from ovsfw.crowding import BUDGET
from ovsfw.daemon import Daemon, Options
from ovsfw.errors import SwitchError
from ovsfw.sources.database import DatabaseSource
from ovsfw.sources.file import FileSource
from ovsfw.sources.source import Source
from ovsfw.status import render
from ovsfw.store.client import WHERE, Remote, is_remote
from ovsfw.switch.rundir import find_control_socket
from ovsfw.switch.unixctl import unixctl
from ovsfw.sync import AUDIT_EVERY, Place

NOT_WELL = 2
HOOKS = {"table0": STANDALONE, "neutron": NEUTRON}


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    about = "the daemon: keep the bridge as the policy says, in the foreground, until it is stopped; flows stay"
    command = commands.add_parser("run", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.add_argument(
        "--policy",
        required=True,
        metavar="SOURCE",
        help=f"the policy file, which is read again on change; or the policy database: {WHERE}",
    )
    command.add_argument(
        "--host",
        default=socket.gethostname(),
        metavar="NAME",
        help="what this host is called in the policy database, and in its certificate (default: its hostname)",
    )
    add_tls(command)
    add_bridge(command)
    command.add_argument(
        "--hook",
        choices=HOOKS,
        default="table0",
        help="where the filter hangs in the bridge: in its table 0, alone; or inside the flows of Neutron's "
        "neutron-openvswitch-agent, whose firewall_driver is noop (default: %(default)s)",
    )
    add_rundir(command)
    command.add_argument(
        "--audit-every",
        type=_seconds,
        default=AUDIT_EVERY,
        metavar="SECONDS",
        help="look at the whole switch this often, whatever happens (default: %(default).0f)",
    )
    command.add_argument(
        "--record-drops",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="remember the last 50 packets dropped at each endpoint, for `ovsfw drops`; they are copied behind meters, "
        "and only where the switch has such (default: yes)",
    )
    command.add_argument(
        "--log-decisions",
        default="",
        metavar="FILE",
        help="log what the policy says by `log`, a line of JSON each; - is standard output; opened again on SIGHUP",
    )
    command.add_argument(
        "--set-fail-mode",
        action="store_true",
        help="set the bridge's fail_mode to secure if it is not; the switch drops its flows once for it",
    )
    command.add_argument(
        "--metrics",
        default="",
        metavar="ADDR:PORT",
        help="tell Prometheus how it is at http://ADDR:PORT/metrics; a port alone is one of the loopback address",
    )
    command.add_argument(
        "--mask-budget",
        type=_count,
        default=BUDGET,
        metavar="N",
        help="warn when the datapath has more masks than this: it is slow then, and somebody may have made it so "
        "(default: %(default)d)",
    )
    command.add_argument("--log-level", choices=logs.LEVELS, default="info", help="default: info")
    command.set_defaults(run=run_daemon)
    about = "how the running daemon is.  Exit 0 in sync, 2 it runs but is not, 1 it does not run"
    command = commands.add_parser("status", help=about, description=f"{about[0].upper()}{about[1:]}.")
    add_bridge(command)
    add_rundir(command)
    add_format(command)
    command.set_defaults(run=run_status)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 1:
        raise argparse.ArgumentTypeError("at least 1")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def run_daemon(args: argparse.Namespace) -> int:
    """Run until stopped."""
    logs.start(args.log_level)
    hook = HOOKS[args.hook]
    place = Place(args.db, args.bridge, hook, records_drops=args.record_drops, logs=bool(args.log_decisions))
    options = Options(
        place,
        _rundir(args),
        source_name=args.policy,
        audit_every=args.audit_every,
        set_fail_mode=args.set_fail_mode,
        metrics=args.metrics,
        decisions=args.log_decisions,
        mask_budget=args.mask_budget,
    )

    async def run() -> None:
        await Daemon(_source(args), options).run()

    asyncio.run(run())
    return 0


def _source(args: argparse.Namespace) -> Source:
    """The file or the database that --policy names.  Raises ConfigError."""
    if is_remote(args.policy):
        return DatabaseSource(Remote.parse(args.policy, tls_of(args)), args.host)
    return FileSource(args.policy)


async def ask_daemon(args: argparse.Namespace, command: str, *words: str) -> str:
    """What the running daemon answers.  Raises SwitchError when there is none, or with its complaint."""
    rundir = _rundir(args)
    control = find_control_socket("ovsfw", rundir)
    if control is None:
        raise SwitchError(f"no daemon runs in {rundir}; start it with: ovsfw run --policy FILE (or give its --rundir)")
    return await unixctl(control, command, *words)


def run_status(args: argparse.Namespace) -> int:
    """Ask the daemon."""
    found = json.loads(asyncio.run(ask_daemon(args, "status", "json")))
    print(json.dumps(found, indent=2) if args.format == "json" else render(found), end="")
    return 0 if found["healthy"] else NOT_WELL


def _rundir(args: argparse.Namespace) -> Path:
    return Path(args.rundir) if args.rundir else rundir_of(args.db)
