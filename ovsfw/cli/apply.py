"""`apply`: make a bridge as a policy says, for good or on trial."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys

from ovsfw.apply import Comparison, apply_once
from ovsfw.cli.bridge import More, outranked, report
from ovsfw.cli.options import add_bridge, add_format, add_policy
from ovsfw.cli.policy import policy_of
from ovsfw.confirm import Trial, apply_on_trial
from ovsfw.errors import ConfigError

LONGEST_TRIAL = 86400
_ON_TRIAL = (
    "With --confirm the change is on trial: without Enter on the terminal or `ovsfw confirm` in time, the flows are "
    "put back that were there before, and the connections that were cut live again.  Ctrl-C, SIGTERM and the end of "
    "the terminal do the same.  SIGKILL cannot be seen: after it the change stays.  Stop the daemon of this bridge "
    "first: it would put its own policy back."
)


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.epilog = _ON_TRIAL
    add_policy(command)
    add_bridge(command)
    add_format(command)
    command.add_argument(
        "--confirm", metavar="SECONDS", type=float, help="take it back unless confirmed within this time"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Change it, for good or on trial."""
    if args.confirm is not None:
        return _on_trial(args)
    _report_applied(args, asyncio.run(apply_once(policy_of(args), args.db, args.bridge)))
    return 0


def _report_applied(args: argparse.Namespace, comparison: Comparison) -> None:
    settled = comparison.settled
    lines = (f"connections: {settled}",) if any(settled) else ()
    warnings = (*comparison.warnings, *outranked(comparison))
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
