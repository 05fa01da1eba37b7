"""`lab cluster`: the failure story of the policy database."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ovsfw.lab.cluster import Cluster
from ovsfw.lab.failover import Story

DIFFERENT = 1


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the command."""
    about = (
        "three database servers in RAFT and two hosts with VXLAN between them; the leader is killed and a host is cut "
        "off while the policy changes and packets flow; what was lost is counted.  Exit 0 nothing, 1 something"
    )
    command = commands.add_parser("cluster", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.add_argument("--name", default="cluster", metavar="NAME", help="of the namespaces (default: %(default)s)")
    command.add_argument("--directory", metavar="DIR", help="of everything (default: /run/ovsfw-NAME)")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Live through it, and take everything down."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    cluster = Cluster(args.name, Path(args.directory or f"/run/ovsfw-{args.name}"))
    with cluster.up():
        say("three servers and two hosts are up")
        outcome = Story(cluster, say).tell()
    say("everything is taken down")
    return 0 if outcome.is_good else DIFFERENT
