"""`diff`: what a policy would change at a bridge."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator

from ovsfw import live
from ovsfw.apply import Comparison
from ovsfw.cli.bridge import DIFFERENT, More, report
from ovsfw.cli.connections import attempt_json, attempt_text, preview_json, preview_lines
from ovsfw.cli.options import add_bridge, add_format, add_policy, add_rundir
from ovsfw.cli.policy import policy_of
from ovsfw.cli.status import ask_daemon
from ovsfw.compiler.identity import Identity
from ovsfw.errors import SwitchError
from ovsfw.explain.attempts import Attempt, allowed_attempts
from ovsfw.explain.drops import Record
from ovsfw.policy.model import Policy

_NAMED = 10


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    add_policy(command)
    add_bridge(command)
    add_rundir(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show what would change."""
    policy = policy_of(args)
    comparison, found = asyncio.run(live.preview(policy, args.db, args.bridge))
    attempts = _attempts(args, policy, comparison)
    touched = _touched(policy, comparison)
    extra = {**touched, "connections": {**preview_json(found), "open": list(map(attempt_json, attempts))}}
    lines = [
        *preview_lines(policy, found),
        *(attempt_text(policy, each) for each in attempts),
        *_touched_lines(touched),
    ]
    report(args, comparison.change, More(comparison.warnings, extra, tuple(lines)), verb="would change")
    return DIFFERENT if comparison.change else 0


def _attempts(args: argparse.Namespace, policy: Policy, comparison: Comparison) -> list[Attempt]:
    """What was tried lately and would now be let through, by the memory of the daemon; nothing where none remembers."""
    if not comparison.change:
        return []
    try:
        said = json.loads(asyncio.run(ask_daemon(args, "drops")))
    except SwitchError:
        return []
    return allowed_attempts(policy, comparison.bindings, [Record(**each) for each in said["drops"]])


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
