"""`run`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import socket

from ovsfw import logs
from ovsfw.cli.options import add_bridge, add_rundir, add_tls, rundir, tls_of
from ovsfw.compiler import NEUTRON, STANDALONE
from ovsfw.crowding import BUDGET
from ovsfw.daemon import Daemon, Options
from ovsfw.sources.database import DatabaseSource
from ovsfw.sources.file import FileSource
from ovsfw.sources.source import Source
from ovsfw.store.client import WHERE, Remote, is_remote
from ovsfw.sync import AUDIT_EVERY, Place

HOOKS = {"table0": STANDALONE, "neutron": NEUTRON}


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
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
    command.set_defaults(run=run)


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


def run(args: argparse.Namespace) -> int:
    """Run until stopped."""
    logs.start(args.log_level)
    hook = HOOKS[args.hook]
    place = Place(args.db, args.bridge, hook, records_drops=args.record_drops, logs=bool(args.log_decisions))
    options = Options(
        place,
        rundir(args),
        source_name=args.policy,
        audit_every=args.audit_every,
        set_fail_mode=args.set_fail_mode,
        metrics=args.metrics,
        decisions=args.log_decisions,
        mask_budget=args.mask_budget,
    )

    async def daemon() -> None:
        await Daemon(_source(args), options).run()

    asyncio.run(daemon())
    return 0


def _source(args: argparse.Namespace) -> Source:
    """The file or the database that --policy names.  Raises ConfigError."""
    if is_remote(args.policy):
        return DatabaseSource(Remote.parse(args.policy, tls_of(args)), args.host)
    return FileSource(args.policy)
