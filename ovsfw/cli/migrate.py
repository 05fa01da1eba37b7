"""`migrate`: leaving the firewall driver that was there before."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from ovsfw import migration
from ovsfw.cli.options import add_bridge, add_format
from ovsfw.migration import Situation
from ovsfw.policy.model import Policy
from ovsfw.sources.file import read_policy

_STEPS = (
    "First `plan` says for each port how it is plugged in, what filters it, and what will differ.  Then set "
    "firewall_driver = ovsfw and restart the agent: its first bundle puts ovsfw before the flows of the driver "
    "openvswitch, and takes over the live connections that the policy allows.  Ports of the hybrid bridge are filtered "
    "by iptables, too, until `run` has moved them out; `back` puts them back."
)


def add(command: argparse.ArgumentParser) -> None:
    """Its commands."""
    command.epilog = _STEPS
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    plan = _part(parts, "plan", run_plan, "say for each port what filters it and what will differ; change nothing")
    plan.add_argument("--policy", metavar="FILE", help="the policy document that will hold, to say more")
    add_format(plan)
    for name, run, about in (
        ("run", run_out, "move hybrid ports out of their Linux bridges into the switch"),
        ("back", run_back, "put ports that were moved back into their Linux bridges"),
    ):
        _part(parts, name, run, about).add_argument("--port", metavar="ID", default="", help="only this port")


def _part(parts: Any, name: str, run: object, about: str) -> argparse.ArgumentParser:  # noqa: ANN401
    part: argparse.ArgumentParser = parts.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    add_bridge(part)
    part.set_defaults(run=run)
    return part


def run_plan(args: argparse.Namespace) -> int:
    """Look."""
    policy: Policy | None = read_policy(args.policy) if args.policy else None
    found = asyncio.run(migration.survey(args.db, args.bridge, policy))
    if args.format == "json":
        print(json.dumps([_as_json(each) for each in found], indent=2))
        return 0
    for each in found:
        print(f"{each.id}: {each.plug.value}, filtered by {each.filter.value}")
        for line in each.differences:
            print(f"  {line}")
    print(f"{args.bridge}: {len(found)} ports")
    return 0


def _as_json(found: Situation) -> dict[str, object]:
    port = found.port
    return {
        "port": found.id,
        "device": port.name,
        "ofport": port.ofport,
        "vlan": port.vlan,
        "plugged": found.plug.name.lower(),
        "filter": found.filter.value,
        "differences": list(found.differences),
    }


def run_out(args: argparse.Namespace) -> int:
    """Move ports out."""
    return _report(args, asyncio.run(migration.move_out(args.db, args.bridge, args.port)), "moved out")


def run_back(args: argparse.Namespace) -> int:
    """Put ports back."""
    return _report(args, asyncio.run(migration.move_back(args.db, args.bridge, args.port)), "put back")


def _report(args: argparse.Namespace, moved: list[str], verb: str) -> int:
    for name in moved:
        print(f"{name}: {verb}")
    print(f"{args.bridge}: {len(moved)} ports {verb}")
    return 0
