"""`diff`, `apply`, `verify`, `clear`: a policy and a bridge."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ovsfw import apply as oneshot
from ovsfw import live
from ovsfw.apply import Comparison
from ovsfw.cli.connections import preview_json, preview_lines
from ovsfw.cli.options import add_bridge, add_format, add_policy, policy_of
from ovsfw.compiler.identity import Identity
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.confirm import Trial, apply_on_trial, confirm
from ovsfw.errors import ConfigError
from ovsfw.openflow.flow import Flow
from ovsfw.openflow.text import format_flow
from ovsfw.policy.model import Policy
from ovsfw.reconciler import Change

DIFFERENT = 2
LONGEST_TRIAL = 86400
_NAMED = 10
_ON_TRIAL = (
    "With --confirm the change is on trial: without Enter on the terminal or `ovsfw confirm` in time, the flows are "
    "put back that were there before, and the connections that were cut live again.  Ctrl-C, SIGTERM and the end of "
    "the terminal do the same.  SIGKILL cannot be seen: after it the change stays.  Stop the daemon of this bridge "
    "first: it would put its own policy back."
)


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    for name, run, about in (
        (
            "diff",
            run_diff,
            "what apply would change: -/+ flows, live connections.  Exit 0 nothing, 2 differences, 1 error",
        ),
        ("apply", run_apply, "make the bridge hold exactly the policy, in one atomic bundle, and exit"),
        ("verify", run_verify, "does the bridge hold exactly the policy?  Exit 0 yes, 2 drift, 1 error"),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        add_policy(command)
        add_bridge(command)
        add_format(command)
        command.set_defaults(run=run)
        if name == "apply":
            command.add_argument(
                "--confirm", metavar="SECONDS", type=float, help="take it back unless confirmed within this time"
            )
            command.epilog = _ON_TRIAL
    about = "keep the change that `apply --confirm` has made and that waits"
    command = commands.add_parser("confirm", help=about, description=f"{about[0].upper()}{about[1:]}.")
    add_bridge(command)
    command.set_defaults(run=run_confirm)
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
    policy = policy_of(args)
    comparison, found = asyncio.run(live.preview(policy, args.db, args.bridge))
    touched = _touched(policy, comparison)
    extra = {**touched, "connections": preview_json(found)}
    lines = [*preview_lines(policy, found), *_touched_lines(touched)]
    report(args, comparison.change, More(comparison.warnings, extra, tuple(lines)), verb="would change")
    return DIFFERENT if comparison.change else 0


def _touched(policy: Policy, comparison: Comparison) -> dict[str, list[str]]:
    """The endpoints and rules whose flows change, by id; rules that are not in the policy any more have no name."""
    identity = Identity(policy, comparison.bindings)
    flows = comparison.change.flows
    changed = (*flows.deletes, *flows.adds, *(new for _, new in flows.changes))
    meanings = [meaning for flow in changed if (meaning := identity.flow(flow)) is not None]
    return {
        "endpoints": sorted({meaning.endpoint for meaning in meanings if meaning.endpoint}),
        "rules": sorted({meaning.rule.id for meaning in meanings if meaning.rule}),
    }


def _touched_lines(touched: dict[str, list[str]]) -> Iterator[str]:
    for what, names in touched.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield f"{what}: {' '.join(names[:_NAMED])}{more}"


def run_apply(args: argparse.Namespace) -> int:
    """Change it, for good or on trial."""
    if args.confirm is not None:
        return _on_trial(args)
    _report_applied(args, asyncio.run(oneshot.apply_once(policy_of(args), args.db, args.bridge)))
    return 0


def _report_applied(args: argparse.Namespace, comparison: Comparison) -> None:
    settled = comparison.settled
    lines = (f"connections: {settled}",) if any(settled) else ()
    warnings = (*comparison.warnings, *_outranked(comparison))
    more = More(warnings, {"connections": settled._asdict()}, lines)
    report(args, comparison.change, more, verb="changed", show_flows=False)


def _on_trial(args: argparse.Namespace) -> int:
    """Apply, wait, and keep it or take it back: exit 0 or 1.  Raises ConfigError for a time that makes no sense."""
    if not 0 < args.confirm <= LONGEST_TRIAL:
        raise ConfigError(f"--confirm {args.confirm:g}: expected seconds, from above 0 to {LONGEST_TRIAL}")
    rest = shlex.join(["ovsfw", "confirm", "--bridge", args.bridge, "--db", args.db])

    def announce(comparison: Comparison) -> None:
        _report_applied(args, comparison)
        enter = "press Enter here, or run elsewhere" if sys.stdin is not None and sys.stdin.isatty() else "run"
        print(f"ovsfw: taken back in {args.confirm:g} s unless confirmed: {enter}: {rest}", file=sys.stderr)
        sys.stdout.flush()

    trial = Trial(args.confirm, announce)
    outcome = apply_on_trial(policy_of(args), args.db, args.bridge, trial)
    if outcome.ended:
        print(f"ovsfw: taken back: {outcome.ended}; the bridge is as it was before", file=sys.stderr)
        return 1
    print("ovsfw: confirmed: the change stays", file=sys.stderr)
    return 0


def run_confirm(args: argparse.Namespace) -> int:
    """Keep it."""
    asyncio.run(confirm(args.db, args.bridge))
    print(f"{args.bridge}: confirmed")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Show drift."""
    comparison = asyncio.run(oneshot.compare(policy_of(args), args.db, args.bridge))
    outranked = _outranked(comparison)
    report(args, comparison.change, More((*comparison.warnings, *outranked)), verb="drifted")
    return DIFFERENT if comparison.change or outranked else 0


def run_clear(args: argparse.Namespace) -> int:
    """Take ovsfw off a bridge."""
    change = asyncio.run(oneshot.clear(args.db, args.bridge))
    report(args, change, More(), verb="changed", show_flows=False)
    return 0


def _outranked(comparison: Comparison) -> tuple[str, ...]:
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
