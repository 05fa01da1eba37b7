"""`ovsfw check`: is the policy document right?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from ovsfw.cli.options import add_format, add_policy
from ovsfw.errors import PolicyError
from ovsfw.policy.document import warnings
from ovsfw.policy.model import Policy
from ovsfw.sources.file import read_policy

EPILOG = """exit status: 0 the document is right (there may be warnings), 1 it is not, or cannot be read

example: ovsfw check --policy policy.yaml"""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "check",
        help="is the policy document right?",
        description="Read a policy document and say everything that is wrong with it, each with file, line and column.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy(parser)
    add_format(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found: text has its problems on stderr, JSON is one object on stdout.  Returns the exit status."""
    try:
        policy = read_policy(args.policy)
    except PolicyError as error:
        if args.format == "text":
            print(error, file=sys.stderr)
        else:
            _print_json({"policy": args.policy, "problems": [asdict(problem) for problem in error.problems]})
        return 1
    counts = _counts(policy)
    if args.format == "text":
        print(f"{args.policy}: {', '.join(_amount(what, count) for what, count in counts.items())}")
        for warning in warnings(policy):
            print(f"{args.policy}: warning: {warning}")
    else:
        _print_json({"policy": args.policy, "problems": [], "warnings": warnings(policy), **counts})
    return 0


def _counts(policy: Policy) -> dict[str, int]:
    return {
        "ports": len(policy.ports),
        "security_groups": len(policy.security_groups),
        "rules": sum(1 for _ in policy.rules),
        "address_groups": len(policy.address_groups),
        "tiers": len(policy.tiers),
    }


def _amount(what: str, count: int) -> str:
    words = what.replace("_", " ")
    return f"{count} {words.removesuffix('s') if count == 1 else words}"


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, indent=2))
