"""`db pki`: certificates for the servers and the hosts of a policy database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ovsfw.store.pki import DAYS, Authority

_ABOUT = (
    "make keys and certificates that a policy database, its hosts and its operators know each other by; the authority "
    "too, if there is none yet.  What is there stays as it is"
)


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the command."""
    command = commands.add_parser("pki", help=_ABOUT, description=f"{_ABOUT[0].upper()}{_ABOUT[1:]}.")
    command.add_argument(
        "--directory", default="/etc/ovsfw/pki", metavar="DIR", help="of the authority (default: %(default)s)"
    )
    command.add_argument("--days", type=int, default=DAYS, help="that certificates are good for (default: %(default)s)")
    command.add_argument(
        "names", metavar="NAME", nargs="+", help="a host's name, as ovsfw run --host has it; any for a server"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make what is missing."""
    authority = Authority(Path(args.directory))
    if not authority.exists:
        authority.create()
        print(f"{authority.directory}/ca.key: the key of a new authority; it stays here")
    for name in args.names:
        key, certificate = authority.files(name)
        made = authority.issue(name, args.days)
        print(f"{key}, {certificate}" if made else f"{certificate} is there already; delete it to make another")
    print(f"each goes to its machine, with {authority.directory}/ca.crt")
    return 0
