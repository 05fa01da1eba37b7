"""Options that several commands share, so that they are the same everywhere."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ovsfw.errors import ConfigError
from ovsfw.store.client import Tls
from ovsfw.switch.rundir import default_database, rundir_of

_DURATION = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_policy(command: argparse.ArgumentParser) -> None:
    """--policy FILE and --no-assertions."""
    command.add_argument("--policy", required=True, metavar="FILE", help="the policy document, YAML or JSON")
    command.add_argument(
        "--no-assertions", action="store_true", help="go on when assertions of the document do not hold; only warn"
    )


def add_bridge(command: argparse.ArgumentParser) -> None:
    """--bridge and --db."""
    command.add_argument("--bridge", default="br-int", metavar="BR", help="the bridge (default: br-int)")
    add_database(command)


def add_database(command: argparse.ArgumentParser) -> None:
    """--db."""
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


def rundir(args: argparse.Namespace) -> Path:
    """The directory that --rundir names, or that --db is in."""
    return Path(args.rundir) if args.rundir else rundir_of(args.db)


_TLS = {
    "--private-key": "this side's private key, for addresses with ssl:",
    "--certificate": "this side's certificate",
    "--ca-cert": "the certificate that the other side's is signed by",
}


def add_tls(command: argparse.ArgumentParser) -> None:
    """The files for TLS, named as everywhere in Open vSwitch."""
    for option, about in _TLS.items():
        command.add_argument(option, metavar="FILE", help=about)


def tls_of(args: argparse.Namespace) -> Tls | None:
    """All three files, or None.  Raises ConfigError when only some are given."""
    files = (args.private_key, args.certificate, args.ca_cert)
    if not any(files):
        return None
    if not all(files):
        raise ConfigError(f"TLS needs all of {', '.join(_TLS)}")
    return Tls(*files)


def duration(text: str) -> int:
    """Seconds in `30d`, `12h`, `90m`."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 30d, 12h, 90m")
    return int(found[1]) * _SECONDS[found[2]]
