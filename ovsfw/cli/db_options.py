"""What the commands of `db` have in common: where the database is, and waiting for hosts."""

from __future__ import annotations

import argparse
import os
import sys

from ovsfw.cli.options import add_tls, tls_of
from ovsfw.store.client import WHERE, Remote
from ovsfw.store.editing import Change, edit
from ovsfw.store.waiting import wait_for_hosts

DIRECTORY = "/var/lib/ovsfw"
WAIT_TIMEOUT = 30.0


def add_store(command: argparse.ArgumentParser) -> None:
    """--store, and the files for TLS."""
    command.add_argument(
        "--store",
        default=os.environ.get("OVSFW_STORE") or f"unix:{DIRECTORY}/db.sock",
        metavar="ADDR[,ADDR...]",
        help=f"the policy database: {WHERE} (default: %(default)s; the environment's OVSFW_STORE is honoured)",
    )
    add_tls(command)


def remote_of(args: argparse.Namespace) -> Remote:
    """The database that --store names.  Raises ConfigError."""
    return Remote.parse(args.store, tls_of(args))


def add_wait(command: argparse.ArgumentParser) -> None:
    """--wait and --timeout."""
    command.add_argument(
        "--wait",
        choices=("none", "hosts"),
        default="none",
        help="hosts: return when every live host has the change in its flows (default: %(default)s)",
    )
    command.add_argument(
        "--timeout", type=float, default=WAIT_TIMEOUT, metavar="SECONDS", help="of --wait (default: %(default).0f)"
    )


async def finish(args: argparse.Namespace, change: Change) -> int:
    """Make a change, say what it did, and wait for the hosts if that is asked for."""
    remote = remote_of(args)
    done = await edit(remote, change, awaited=args.wait == "hosts")
    print(f"generation {done.generation}: {done.changes or '0 changes'}")
    if args.wait == "hosts":
        found = await wait_for_hosts(remote, done.generation, args.timeout)
        live = len(found.hosts) - len(found.dead)
        print(f"{live} live hosts have it in their flows")
        for host in found.dead:
            silent = found.now - host.last_seen
            print(
                f"ovsfw: warning: host {host.name} has said nothing for {silent:.0f} s: not waited for", file=sys.stderr
            )
    return 0
