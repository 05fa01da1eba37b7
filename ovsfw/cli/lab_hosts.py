"""Options of `lab up` for a lab over two hosts."""

from __future__ import annotations

import argparse

from ovsfw.errors import ConfigError


def add(command: argparse.ArgumentParser) -> None:
    """Register them."""
    group = command.add_argument_group(
        "over two hosts",
        "Say this on both, with the same policy: the machines are plugged into br-int of the host's own Open vSwitch, "
        "and VXLAN joins the two bridges.  `ovsfw lab matrix` on either tries everything.",
    )
    group.add_argument("--host", metavar="IP", help="address of this host")
    group.add_argument("--peer", metavar="IP", help="address of the other host")
    group.add_argument("--machines", metavar="NAMES", help="the machines here, with commas; one may be outside")


def ends(args: argparse.Namespace) -> tuple[str, str] | None:
    """Both addresses, None for a lab on this machine alone.  Raises ConfigError when something is missing."""
    said = [args.host, args.peer, args.machines]
    if not any(said):
        return None
    if not all(said):
        raise ConfigError("a lab over two hosts needs all of --host, --peer and --machines")
    return args.host, args.peer
