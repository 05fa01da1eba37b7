"""`ovsfw-neutron-sync`: compare the policy database with Neutron's by hand, and mend what differs.

The servers do the same by themselves, every `repair_interval`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import sqlalchemy.exc
from oslo_config import cfg
from oslo_db import exception as database_errors
from oslo_db import options as database_options

from ovsfw.errors import ConfigError, OvsfwError
from ovsfw.neutron import config
from ovsfw.neutron.comparing import told
from ovsfw.neutron.publisher import Publisher
from ovsfw.neutron.server_database import snapshot

DIFFERENT = 2
_ML2_CONF = Path("/etc/neutron/plugins/ml2/ml2_conf.ini")


def main(argv: list[str] | None = None) -> int:
    """Compare, print, and mend if asked; errors go to stderr in one line each."""
    args = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(args))
    except (OvsfwError, OSError, cfg.Error, database_errors.DBError, sqlalchemy.exc.SQLAlchemyError) as error:
        for line in str(error).splitlines():
            print(f"ovsfw-neutron-sync: {line}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovsfw-neutron-sync",
        description="Compare the policy database with Neutron's: security groups, rules, address groups, ports.",
        epilog="Exit status: 0 all is well, 1 an error, 2 differences were found (only --dry-run).",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dry-run", action="store_true", help="only print what differs")
    what.add_argument("--repair", action="store_true", help="print what differs, and mend it and nothing else")
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help=f"as the server has them (default: neutron.conf where Neutron looks for it, and {_ML2_CONF})",
    )
    return parser


async def _run(args: argparse.Namespace) -> int:
    publisher = _publisher(args.config_file)
    plan = await (publisher.repair() if args.repair else publisher.compare())
    lines = list(told(plan.change, plan.old))
    for line in lines:
        print(line)
    for problem in plan.change.problems:
        print(f"ovsfw-neutron-sync: {problem}", file=sys.stderr)
    print(f"{len(lines)} differences{', mended' if lines and args.repair else ''}")
    return DIFFERENT if lines and args.dry_run else 0


def _publisher(files: list[str] | None) -> Publisher:
    """As the server's configuration has it.  Raises ConfigError."""
    if files is None:
        files = [*cfg.find_config_files("neutron"), *([str(_ML2_CONF)] if _ML2_CONF.exists() else [])]
    cfg.CONF([word for file in files for word in ("--config-file", file)], project="neutron")
    cfg.CONF.register_opts(database_options.database_opts, "database")
    # Somebody waits: what is away is told at once.
    cfg.CONF.set_override("max_retries", 1, "database")
    remote = config.remote_of(config.register())
    if remote is None:
        raise ConfigError(f"[ovsfw] connection is not set in {', '.join(files) or 'any configuration'}")
    return Publisher(remote, snapshot)
