"""`ovsfw check`: is the policy document right?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from ovsfw.cli.options import add_format, add_policy
from ovsfw.errors import PolicyError, Problem
from ovsfw.policy.assertions import Outcome
from ovsfw.policy.document import Document, warnings
from ovsfw.sources.file import read_document

EPILOG = """exit status: 0 the document is right and its assertions hold (there may be warnings), 1 it is not, or one
does not, or it cannot be read

example: ovsfw check --policy policy.yaml"""


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = (
        "Read a policy document and say everything that is wrong with it, each with file, line and column; then judge "
        "its assertions."
    )
    command.epilog = EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    add_policy(command)
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found: text has its problems on stderr, JSON is one object on stdout.  Returns the exit status."""
    try:
        document = read_document(args.policy)
    except PolicyError as error:
        return _wrong(args, error.problems)
    outcomes = document.judge()
    failures = document.failures(outcomes)
    if failures and not args.no_assertions:
        return _wrong(args, failures)
    counts = _counts(document)
    found = [*warnings(document.policy), *_about_assertions(outcomes), *map(str, failures)]
    if args.format == "text":
        print(f"{args.policy}: {', '.join(_amount(what, count) for what, count in counts.items())}")
        for warning in found:
            print(f"{args.policy}: warning: {warning}")
    else:
        _print_json({"policy": args.policy, "problems": [], "warnings": found, **counts})
    return 0


def _wrong(args: argparse.Namespace, problems: Sequence[Problem]) -> int:
    if args.format == "text":
        print("\n".join(map(str, problems)), file=sys.stderr)
    else:
        _print_json({"policy": args.policy, "problems": [asdict(problem) for problem in problems]})
    return 1


def _about_assertions(outcomes: Iterable[Outcome]) -> list[str]:
    return [
        f"assertion '{outcome.assertion.id}' has nothing to judge: nobody it names has an address"
        for outcome in outcomes
        if not outcome.judged
    ]


def _counts(document: Document) -> dict[str, int]:
    policy = document.policy
    return {
        "ports": len(policy.ports),
        "security_groups": len(policy.security_groups),
        "rules": sum(1 for _ in policy.rules),
        "address_groups": len(policy.address_groups),
        "tiers": len(policy.tiers),
        "assertions": len(document.assertions),
    }


def _amount(what: str, count: int) -> str:
    words = what.replace("_", " ")
    return f"{count} {words.removesuffix('s') if count == 1 else words}"


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, indent=2))
