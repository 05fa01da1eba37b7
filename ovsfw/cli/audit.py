"""`ovsfw audit`: what a policy opens further than it surely means to."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
from collections import Counter
from typing import NamedTuple
from urllib.parse import quote

from ovsfw import __version__
from ovsfw.apply import opened
from ovsfw.cli.options import add_database, duration
from ovsfw.compiler.identity import Identity
from ovsfw.errors import Problem, SwitchError
from ovsfw.explain.narrow import unused_rules, wider_than_used
from ovsfw.explain.usage import is_installed, usages
from ovsfw.live import look_at
from ovsfw.policy.audit import audit
from ovsfw.policy.finding import Finding, Severity
from ovsfw.policy.model import Policy
from ovsfw.policy.suppressions import Suppression, date, review
from ovsfw.sources.file import read_document
from ovsfw.switch import ages as counters
from ovsfw.switch.rundir import management_socket, rundir_of

FOUND = 2
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class Located(NamedTuple):
    """A finding, where it is, and what suppresses it."""

    finding: Finding
    place: Problem
    suppression: Suppression | None


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = f"{command.description}  Assertions are not judged; `ovsfw check` does that."
    command.epilog = "Exit status: 0 nothing as bad as --fail-on, 2 something is, 1 an error."
    command.add_argument("--policy", required=True, metavar="FILE", help="the policy document, YAML or JSON")
    command.add_argument(
        "--format", choices=("text", "json", "sarif"), default="text", help="how to print (default: text)"
    )
    words = [severity.name.lower() for severity in Severity]
    command.add_argument(
        "--fail-on", choices=words, help="exit with 2 when there is a finding as bad as this, or worse (default: never)"
    )
    command.add_argument(
        "--date",
        type=_date,
        default=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        metavar="YYYY-MM-DD",
        help="the day that audit_suppressions are judged for (default: today, in UTC)",
    )
    command.add_argument(
        "--bridge", metavar="BR", help="look at the counters and live connections of this bridge, too (default: none)"
    )
    add_database(command)
    command.add_argument(
        "--unused",
        type=_time,
        default="30d",
        metavar="TIME",
        help="with --bridge: rules not hit for so long (default: 30d)",
    )
    command.set_defaults(run=run)


def _time(text: str) -> str:
    duration(text)
    return text


def _date(text: str) -> str:
    try:
        return date(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    document = read_document(args.policy)
    found = audit(document.policy)
    if args.bridge is not None:
        found += asyncio.run(_of_bridge(args, document.policy))
    reviewed = review(found, document.suppressions, args.date)
    located = [
        Located(finding, document.locate(finding.about, finding.message), suppression)
        for finding, suppression in [*((finding, None) for finding in reviewed.findings), *reviewed.suppressed]
    ]
    if args.format == "text":
        _print_text(args.policy, located)
    else:
        made = _sarif(located) if args.format == "sarif" else [_as_json(each) for each in located]
        print(json.dumps(made, indent=2))
    limit = Severity[args.fail_on.upper()] if args.fail_on else None
    return FOUND if limit is not None and any(finding.severity >= limit for finding in reviewed.findings) else 0


async def _of_bridge(args: argparse.Namespace, policy: Policy) -> list[Finding]:
    """What the rules do on this host."""
    seconds = duration(args.unused)
    async with opened(args.db, args.bridge) as held:
        ages = await counters.read(management_socket(args.bridge, rundir_of(args.db)))
        live = (await look_at(held, policy)).live
        admitted = [(rule, one.connection) for one in live if not one.blocked for rule in one.admitted]
        if not is_installed(ages):
            raise SwitchError(f"bridge {args.bridge} has no flows of ovsfw; apply the policy first")
        used = usages(policy, Identity(policy, held.bindings), ages)
    return [*unused_rules(used, seconds, args.unused), *wider_than_used(policy, admitted)]


def _print_text(source: str, located: list[Located]) -> None:
    left = [(each.finding, each.place) for each in located if each.suppression is None]
    for finding, place in left:
        where = f"{place.source}:{place.line}:{place.column}"
        print(f"{where}: {finding.severity.name.lower()}: {finding.id} {finding.message}; {finding.advice}")
    severities = Counter(finding.severity for finding, _ in left)
    counts = [_amount(severities[severity], severity.name.lower()) for severity in reversed(Severity)]
    if suppressed := len(located) - len(left):
        counts.append(f"{suppressed} suppressed")
    print(f"{source}: {', '.join(counts)}")


def _amount(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _as_json(located: Located) -> dict[str, object]:
    finding, place, suppression = located
    return {
        "id": finding.id,
        "kind": finding.kind,
        "severity": finding.severity.name.lower(),
        "message": finding.message,
        "advice": finding.advice,
        "path": place.path,
        "source": place.source,
        "line": place.line,
        "column": place.column,
        "suppressed": None if suppression is None else suppression._asdict(),
    }


def _sarif(located: list[Located]) -> dict[str, object]:
    """SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): one run, one result for each finding."""
    kinds = sorted({each.finding.kind for each in located})
    driver = {"name": "ovsfw", "version": __version__, "rules": [{"id": kind} for kind in kinds]}
    results = [_result(each) for each in located]
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(located: Located) -> dict[str, object]:
    finding, place, suppression = located
    why = {"kind": "inSource", "justification": suppression.reason} if suppression else None
    region = {"startLine": place.line, "startColumn": place.column}
    return {
        "ruleId": finding.kind,
        "level": finding.severity.name.lower(),
        "message": {"text": f"{finding.about[1]} {finding.message}; {finding.advice}"},
        "partialFingerprints": {"finding/v1": finding.id},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": quote(place.source)}, "region": region}}],
        **({"suppressions": [why]} if why else {}),
    }
