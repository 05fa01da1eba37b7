"""What the commands about a policy and a bridge have in common: how they show a change."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ovsfw.apply import Comparison
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.text import format_flow
from ovsfw.reconciler import Change

DIFFERENT = 2


def outranked(comparison: Comparison) -> tuple[str, ...]:
    """Warnings of what comes before the filter."""
    return tuple(
        f"a flow of another program comes before ovsfw's; what it matches is not filtered: {format_flow(flow)}"
        for flow in comparison.outranking
    )


class More(NamedTuple):
    """What there is to say beside a change: warnings, further keys of the JSON, and further lines."""

    warnings: tuple[str, ...] = ()
    json: Mapping[str, object] = MappingProxyType({})
    lines: tuple[str, ...] = ()


def report(args: argparse.Namespace, change: Change, more: More, *, verb: str, show_flows: bool = True) -> None:
    """Print a change and what else there is to say, as text or JSON."""
    if args.format == "json":
        print(json.dumps({**_as_json(change), **more.json, "warnings": list(more.warnings)}, indent=2))
        return
    if show_flows:
        for line in _lines(change):
            print(line)
    for line in more.lines:
        print(line)
    print(f"{args.bridge}: 0 changes" if not change else f"{args.bridge} {verb}: {change}")
    for warning in more.warnings:
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
