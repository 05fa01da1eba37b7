"""`db init|start|stop`: servers."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from ovsfw.cli.db_options import DIRECTORY, add_store, remote_of
from ovsfw.cli.options import add_tls, tls_of
from ovsfw.errors import StoreAwayError
from ovsfw.store import setup
from ovsfw.store.client import Remote
from ovsfw.store.server import Server

# Seconds until a server that is started finds the others of its cluster.
_PATIENCE, _PAUSE = 30.0, 0.1


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    about = "start a server in a directory of its own, and make the database there if there is none"
    command = commands.add_parser("start", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_directory(command)
    _add_listeners(command)
    add_tls(command)
    command.add_argument(
        "--cluster", metavar="ADDR", help="one of a RAFT cluster: where the others find it (tcp:IP:PORT)"
    )
    command.add_argument(
        "--join", metavar="ADDR", action="append", default=[], help="with --cluster: join the one of which this is one"
    )
    command.set_defaults(run=run_start)
    about = "stop the server of a directory; the database stays"
    command = commands.add_parser("stop", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_directory(command)
    command.set_defaults(run=run_stop)
    about = "set up the database of a server that somebody else has started (schema: ovsfw db schema), or add listeners"
    command = commands.add_parser("init", help=about, description=f"{about[0].upper()}{about[1:]}.")
    add_store(command)
    _add_listeners(command)
    command.set_defaults(run=run_init)
    about = "print where the schema is, for ovsdb-tool"
    command = commands.add_parser("schema", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(run=run_schema)


def _add_directory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--directory", default=DIRECTORY, metavar="DIR", help="of the database and its sockets (default: %(default)s)"
    )


def _add_listeners(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--hosts",
        metavar="TARGET",
        action="append",
        default=[],
        help="listen for hosts, as ptcp:PORT[:IP] or pssl:PORT[:IP]; with TLS a host may write its own row only",
    )
    command.add_argument(
        "--listen", metavar="TARGET", action="append", default=[], help="listen for those who may change the policy"
    )


def run_start(args: argparse.Namespace) -> int:
    """Start, and set up what is missing."""
    server = Server(Path(args.directory), tls_of(args))
    if asyncio.run(server.is_running()):
        print(f"a server runs in {server.directory} already: {server.address}")
        return 0
    is_new = not server.file.exists()
    if is_new and args.join:
        server.join_cluster(args.cluster or "", args.join)
    elif is_new and args.cluster:
        server.create_cluster(args.cluster)
    elif is_new:
        server.create()
    server.start()
    # What is known already is set up; a server of a cluster that starts before the others must not wait for them.
    if (is_new and not args.join) or args.hosts or args.listen:
        asyncio.run(_set_up(args, server))
    print(f"the policy database is at {server.address}")
    for target in (*args.hosts, *args.listen):
        print(f"it listens on {target}")
    return 0


async def _set_up(args: argparse.Namespace, server: Server) -> None:
    """As soon as the server is one of its cluster.  Raises StoreError."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            await setup.initialise(Remote.parse(server.address), hosts=args.hosts, others=args.listen)
            break
        except StoreAwayError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE)


def run_stop(args: argparse.Namespace) -> int:
    """Stop."""
    server = Server(Path(args.directory))
    print(f"the server in {server.directory} {'is stopped' if asyncio.run(server.stop()) else 'does not run'}")
    return 0


def run_init(args: argparse.Namespace) -> int:
    """Set up."""
    done = asyncio.run(setup.initialise(remote_of(args), hosts=args.hosts, others=args.listen))
    print(f"the policy database at {args.store} {'is set up' if done else 'was set up already'}")
    return 0


def run_schema(_args: argparse.Namespace) -> int:
    """Where it is."""
    print(setup.schema_file())
    return 0
