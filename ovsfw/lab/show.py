"""A truth table for people and for programs.  Pure."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from ovsfw.lab.matrix import Matrix, Outcome
from ovsfw.lab.services import Service
from ovsfw.policy.model import Rule
from ovsfw.policy.verdict import Judgement
from ovsfw.policy.wording import rule_text

WIDTH = 110
_WHAT, _WHOM = 22, 28  # columns
_LETTERS = ascii_lowercase + ascii_uppercase
_EVERYTHING, _NOTHING, _SELF = "all", ".", ""
_RED, _GREEN, _DIM, _BOLD, _PLAIN = "\033[31m", "\033[32m", "\033[2m", "\033[1m", "\033[0m"


def as_text(matrix: Matrix, *, colour: bool = False) -> Iterator[str]:
    """Lines: the table, who is let in by which rule, and what differs."""
    paint = _paint if colour else _leave
    yield from _table(matrix, colour=colour)
    yield ""
    yield from _reasons(matrix, colour=colour)
    yield ""
    for outcome in matrix.differences:
        yield paint(_RED, f"differs: {outcome.probe}: {'; '.join(outcome.problems)}")
    yield paint(_RED if matrix.differences else _GREEN, matrix.summary)


def _paint(code: str, text: str) -> str:
    return f"{code}{text}{_PLAIN}"


def _leave(_code: str, text: str) -> str:
    return text


def _table(matrix: Matrix, *, colour: bool) -> Iterator[str]:
    """Senders as rows, receivers as columns; a letter for each service that gets through."""
    letters = {service: _letter(number) for number, service in enumerate(matrix.services)}
    legend = "  ".join(f"{letter} {service}" for service, letter in letters.items())
    yield from textwrap.wrap(f"services:  {legend}", WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False)
    yield from textwrap.wrap(
        "A letter: it passes (b4, b6: over that IP version only).  all: every service passes.  .: nothing does.  "
        "!: the packets do not do what the policy says.",
        WIDTH,
    )
    cells: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in matrix.outcomes:
        cells[outcome.probe.sender.name, outcome.probe.receiver.name].append(outcome)
    names = party_names(matrix)
    rows = [["from \\ to", *names]]
    rows += [[sender, *(_cell(cells.get((sender, receiver), []), letters) for receiver in names)] for sender in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(
            _cell_colour(cell) if colour and number and index else cell for index, cell in enumerate(padded)
        )


def _letter(number: int) -> str:
    return _LETTERS[number] if number < len(_LETTERS) else f"({number})"


def _cell(outcomes: list[Outcome], letters: dict[Service, str]) -> str:
    """What gets through between two parties."""
    if not outcomes:
        return _SELF
    wrong = "!" if any(outcome.problems for outcome in outcomes) else ""
    if all(outcome.passed for outcome in outcomes):
        return wrong + _EVERYTHING
    text = ""
    for service, group in groupby(outcomes, key=lambda outcome: outcome.probe.service):
        tried = list(group)
        passed = [outcome.probe.source.family for outcome in tried if outcome.passed]
        if passed:
            text += letters[service] + ("" if len(passed) == len(tried) else str(int(passed[0])))
    return wrong + (text or _NOTHING)


def _cell_colour(cell: str) -> str:
    code = _RED if "!" in cell else _DIM if cell.strip() == _NOTHING else _GREEN
    return _paint(code, cell)


def _reasons(matrix: Matrix, *, colour: bool) -> Iterator[str]:
    """For every receiver: from whom it gets what, and the rule that lets it."""
    tried: dict[str, set[str]] = defaultdict(set)
    receivers: dict[str, dict[str, dict[Service, set[str]]]] = {}
    for outcome in matrix.outcomes:
        sender, receiver = outcome.probe.sender.name, outcome.probe.receiver.name
        tried[receiver].add(sender)
        reasons = receivers.setdefault(receiver, {})
        if outcome.passed:
            services = reasons.setdefault(deciding(matrix, outcome), defaultdict(set))
            services[outcome.probe.service].add(sender)
    for receiver in party_names(matrix):
        yield _paint(_BOLD, f"to {receiver}") if colour else f"to {receiver}"
        if not receivers[receiver]:
            yield "  nothing"
        for reason, services in receivers[receiver].items():
            for senders, same in _merge(services).items():
                what = "everything" if len(same) == len(matrix.services) else " ".join(map(str, same))
                line = f"  {what:<{_WHAT}} from {_whom(senders, tried[receiver]):<{_WHOM}} {reason}"
                yield from textwrap.wrap(
                    line, WIDTH, subsequent_indent=" " * 4, break_on_hyphens=False, drop_whitespace=False
                )


def party_names(matrix: Matrix) -> list[str]:
    """The names of all parties, in the order of the policy."""
    return list(dict.fromkeys(outcome.probe.sender.name for outcome in matrix.outcomes))


def _whom(senders: tuple[str, ...], everybody: set[str]) -> str:
    """The shorter way to say it."""
    others = sorted(everybody.difference(senders))
    if not others:
        return "everybody"
    return " ".join(senders) if len(senders) <= len(others) else f"all but {' '.join(others)}"


def _merge(services: dict[Service, set[str]]) -> dict[tuple[str, ...], list[Service]]:
    """Services with the same senders."""
    merged: dict[tuple[str, ...], list[Service]] = defaultdict(list)
    for service in sorted(services, key=lambda service: (service.name, service.port)):
        merged[tuple(sorted(services[service]))].append(service)
    return merged


def deciding(matrix: Matrix, outcome: Outcome) -> str:
    """What let a connection in: the receiver's rule; if it needs none, the sender's; if that neither, the reason.

    The rule is the one that the switch names, or the first one of the verdict when it names none.
    """
    verdict, hints = outcome.expected.verdict, outcome.hints
    if not verdict.allowed:
        return "(should not pass)"
    ingress = _rule(matrix, verdict.ingress, hints.ingress if hints else None)
    egress = _rule(matrix, verdict.egress, hints.egress if hints else None)
    rule = ingress or egress
    return f"by {rule_text(matrix.policy, rule)}" if rule else f"({verdict.ingress.reason})"


def _rule(matrix: Matrix, judgement: Judgement, hint: int | None) -> Rule | None:
    return matrix.rules.get(hint or 0) or next(iter(judgement.rules), None)


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The same for programs; every probe with both sides' verdict."""
    return {
        "probes": len(matrix.outcomes),
        "differ": len(matrix.differences),
        "results": [_outcome_json(matrix, outcome) for outcome in matrix.outcomes],
    }


def _outcome_json(matrix: Matrix, outcome: Outcome) -> dict[str, Any]:
    probe, expected = outcome.probe, outcome.expected
    return {
        "from": probe.sender.name,
        "to": probe.receiver.name,
        "service": str(probe.service),
        "ethertype": probe.source.family.ethertype,
        "source": str(probe.source),
        "destination": str(probe.destination),
        "expected": expected.answered,
        "passed": outcome.passed,
        "how": outcome.answer.how,
        "egress": _judgement_json(expected.verdict.egress),
        "ingress": _judgement_json(expected.verdict.ingress),
        "admitted_by": _admitted_json(matrix, outcome),
        "problems": list(outcome.problems),
    }


def _judgement_json(judgement: Judgement) -> dict[str, Any]:
    return {"allowed": judgement.allowed, "rules": [rule.id for rule in judgement.rules], "reason": judgement.reason}


def _admitted_json(matrix: Matrix, outcome: Outcome) -> dict[str, str | None] | None:
    """The rules that the switch names."""
    if outcome.hints is None:
        return None
    rules: Iterable[tuple[str, Rule | None]] = (
        (side, matrix.rules.get(hint or 0)) for side, hint in outcome.hints._asdict().items()
    )
    return {side: rule.id if rule else None for side, rule in rules}
