"""The `audit_suppressions` of a document: findings of the audit that somebody has looked at, for a reason and a time.

They are a matter of documents only: the policy database has no place for them.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from typing import Annotated, ClassVar, NamedTuple

from pydantic import PlainValidator

from ovsfw.policy.finding import Finding, Severity
from ovsfw.policy.places import Path, show
from ovsfw.policy.report import Report
from ovsfw.policy.schema import Shape, read
from ovsfw.policy.values import Identifier

COLLECTION = "audit_suppressions"


def date(value: object) -> str:
    """A day as `2027-01-31`, which sorts as text.  Raises ValueError, with a message for the user."""
    found = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", value) if isinstance(value, str) else None
    if found:
        year, month, day = map(int, found.groups())
        if year and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]:  # noqa: PLR2004 - months
            return found[0]
    raise ValueError(f"{show(value)} is not a day like 2027-01-31")


def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("reason is empty; say why the finding is no trouble")
    return " ".join(value.split())


class SuppressionShape(Shape):
    """A suppression; why and until when are required."""

    stand_ins: ClassVar[dict[str, object]] = {"finding": "-", "reason": "-", "expires": "0001-01-01"}
    finding: Identifier
    reason: Annotated[str, PlainValidator(_reason)]
    expires: Annotated[str, PlainValidator(date)]


class Suppression(NamedTuple):
    """The id of a finding, why it is no trouble, and the last day of that."""

    finding: str
    reason: str
    expires: str


class Reviewed(NamedTuple):
    """What is left to look at, the worst first; and what is suppressed, with its suppression."""

    findings: list[Finding]
    suppressed: list[tuple[Finding, Suppression]]


def read_suppression(data: object, path: Path, report: Report) -> Suppression | None:
    """One suppression; None, reported, where it is none."""
    found = read(SuppressionShape, data, path, report)
    if found is None:
        return None
    shape, _ = found
    return Suppression(shape.finding, shape.reason, shape.expires)


def review(findings: Iterable[Finding], suppressions: Iterable[Suppression], today: str) -> Reviewed:
    """Take the suppressed findings out; suppressions that are over, or suppress nothing, are findings themselves."""
    by_finding = {suppression.finding: suppression for suppression in suppressions}
    valid = {name: suppression for name, suppression in by_finding.items() if today <= suppression.expires}
    left, suppressed = [], []
    found = set()
    for finding in findings:
        found.add(finding.id)
        if finding.id in valid:
            suppressed.append((finding, valid[finding.id]))
        else:
            left.append(finding)
    for name, suppression in by_finding.items():
        about = COLLECTION, name
        if name not in found:
            said = "suppresses nothing: there is no such finding"
            left.append(Finding("suppression-unmatched", Severity.WARNING, about, said, "take it away, or correct it"))
        elif name not in valid:
            said = f"was over after {suppression.expires}: {suppression.reason}"
            advice = "look at the finding again: mend it, or suppress it anew"
            left.append(Finding("suppression-expired", Severity.WARNING, about, said, advice))
    left.sort(key=lambda finding: (-finding.severity, finding.id))
    return Reviewed(left, suppressed)
