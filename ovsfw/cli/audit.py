"""`ovsfw audit`: what a policy opens further than it surely means to."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ovsfw import __version__
from ovsfw.errors import Problem
from ovsfw.policy.audit import Finding, Severity, audit
from ovsfw.sources.file import read_document

ABOUT = "a least-privilege review of a policy: what is open too wide, and what does nothing"
FOUND = 2
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the command."""
    command = commands.add_parser(
        "audit",
        help=ABOUT,
        description=f"{ABOUT[0].upper()}{ABOUT[1:]}.  Assertions are not judged; `ovsfw check` does that.",
        epilog="Exit status: 0 nothing as bad as --fail-on, 2 something is, 1 an error.",
    )
    command.add_argument("--policy", required=True, metavar="FILE", help="the policy document, YAML or JSON")
    command.add_argument(
        "--format", choices=("text", "json", "sarif"), default="text", help="how to print (default: text)"
    )
    words = [severity.name.lower() for severity in Severity]
    command.add_argument(
        "--fail-on", choices=words, help="exit with 2 when there is a finding as bad as this, or worse (default: never)"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    document = read_document(args.policy)
    located = [(finding, document.locate(finding.about, finding.message)) for finding in audit(document.policy)]
    if args.format == "text":
        _print_text(args.policy, located)
    else:
        made = _sarif(located) if args.format == "sarif" else [_as_json(*each) for each in located]
        print(json.dumps(made, indent=2))
    limit = Severity[args.fail_on.upper()] if args.fail_on else None
    return FOUND if limit is not None and any(finding.severity >= limit for finding, _ in located) else 0


def _print_text(source: str, located: list[tuple[Finding, Problem]]) -> None:
    for finding, place in located:
        where = f"{place.source}:{place.line}:{place.column}"
        print(f"{where}: {finding.severity.name.lower()}: {finding.id} {finding.message}; {finding.advice}")
    counts = [
        f"{sum(finding.severity is severity for finding, _ in located)} {severity.name.lower()}s"
        for severity in reversed(Severity)
    ]
    print(f"{source}: {', '.join(counts)}")


def _as_json(finding: Finding, place: Problem) -> dict[str, object]:
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
    }


def _sarif(located: list[tuple[Finding, Problem]]) -> dict[str, object]:
    """SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): one run, one result for each finding."""
    kinds = sorted({finding.kind for finding, _ in located})
    driver = {"name": "ovsfw", "version": __version__, "rules": [{"id": kind} for kind in kinds]}
    results = [_result(finding, place) for finding, place in located]
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(finding: Finding, place: Problem) -> dict[str, object]:
    region = {"startLine": place.line, "startColumn": place.column}
    return {
        "ruleId": finding.kind,
        "level": finding.severity.name.lower(),
        "message": {"text": f"{finding.about[1]} {finding.message}; {finding.advice}"},
        "partialFingerprints": {"finding/v1": finding.id},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": place.source}, "region": region}}],
    }
