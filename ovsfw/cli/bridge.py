"""`diff`, `apply`, `verify`, `clear`: a policy and a bridge."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

from ovsfw import apply as oneshot
from ovsfw.apply import Comparison
from ovsfw.cli.options import add_bridge, add_format, add_policy, policy_of
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.text import format_flow
from ovsfw.reconciler import Change

DIFFERENT = 2


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    for name, run, about in (
        ("diff", run_diff, "what apply would change: -/+ flows.  Exit 0 nothing, 2 differences, 1 error"),
        ("apply", run_apply, "make the bridge hold exactly the policy, in one atomic bundle, and exit"),
        ("verify", run_verify, "does the bridge hold exactly the policy?  Exit 0 yes, 2 drift, 1 error"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        add_policy(command)
        add_bridge(command)
        add_format(command)
        command.set_defaults(run=run)
    about = "take every flow of ovsfw off the bridge"
    command = commands.add_parser(
        "clear",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.  Its endpoints are then unfiltered, or cut off, as the bridge's "
        "remaining flows say.  Flows of others stay.",
    )
    add_bridge(command)
    add_format(command)
    command.set_defaults(run=run_clear)


def run_diff(args: argparse.Namespace) -> int:
    """Show what would change."""
    comparison = asyncio.run(oneshot.compare(policy_of(args), args.db, args.bridge))
    report(args, comparison.change, comparison.warnings, verb="would change")
    return DIFFERENT if comparison.change else 0


def run_apply(args: argparse.Namespace) -> int:
    """Change it."""
    comparison = asyncio.run(oneshot.apply_once(policy_of(args), args.db, args.bridge))
    report(args, comparison.change, (*comparison.warnings, *_outranked(comparison)), verb="changed", show_flows=False)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Show drift."""
    comparison = asyncio.run(oneshot.compare(policy_of(args), args.db, args.bridge))
    outranked = _outranked(comparison)
    report(args, comparison.change, (*comparison.warnings, *outranked), verb="drifted")
    return DIFFERENT if comparison.change or outranked else 0


def run_clear(args: argparse.Namespace) -> int:
    """Take ovsfw off a bridge."""
    change = asyncio.run(oneshot.clear(args.db, args.bridge))
    report(args, change, (), verb="changed", show_flows=False)
    return 0


def _outranked(comparison: Comparison) -> tuple[str, ...]:
    return tuple(
        f"a flow of another program comes before ovsfw's; what it matches is not filtered: {format_flow(flow)}"
        for flow in comparison.outranking
    )


def report(
    args: argparse.Namespace, change: Change, warnings: tuple[str, ...], *, verb: str, show_flows: bool = True
) -> None:
    """Print a change and what else there is to say, as text or JSON."""
    if args.format == "json":
        print(json.dumps({**_as_json(change), "warnings": list(warnings)}, indent=2))
        return
    if show_flows:
        for line in _lines(change):
            print(line)
    print(f"{args.bridge}: 0 changes" if not change else f"{args.bridge} {verb}: {change}")
    for warning in warnings:
        print(f"ovsfw: warning: {warning}", file=sys.stderr)


def _text(flow: Flow) -> str:
    return format_flow(flow, TABLE_NAMES)


def _lines(change: Change) -> Iterator[str]:
    """Like `ovs-ofctl diff-flows`: a change is its old and its new form."""
    rows = [(flow.key, "-", flow) for flow in change.flows.deletes]
    rows += [(flow.key, "+", flow) for flow in change.flows.adds]
    for old, new in change.flows.changes:
        rows += [(old.key, "-", old), (new.key, "+", new)]
    for _, sign, flow in sorted(rows, key=lambda row: row[0]):
        yield f"{sign}{_text(flow)}"
    for ofport in sorted(change.close):
        yield f"+port {ofport}: no-flood"
    for ofport in sorted(change.open):
        yield f"-port {ofport}: no-flood"
    if change.fragment_ports is not None:
        yield f"{'+' if change.fragment_ports else '-'}ports of fragments shown"
    for zone, limit in change.limits.items():
        yield f"-zone {zone}: limit of connections" if limit is None else f"+zone {zone}: {limit} connections"


def _as_json(change: Change) -> dict[str, object]:
    flows = change.flows
    return {
        "delete": [_text(flow) for flow in flows.deletes],
        "add": [_text(flow) for flow in flows.adds],
        "change": [{"old": _text(old), "new": _text(new)} for old, new in flows.changes],
        "no_flood": {"set": sorted(change.close), "clear": sorted(change.open)},
        "fragment_ports": change.fragment_ports,
        "connection_limits": dict(change.limits),
    }
