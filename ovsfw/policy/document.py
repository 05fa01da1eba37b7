"""A policy document (YAML or JSON) into a `Policy`, or every problem in it at once.

The document is described in docs/policy.md.  Comes in: text.  Goes out: a `Policy` that is valid, for which the
document's assertions hold, and that does not depend on the order of the document (law 7); or `PolicyError`.
Nothing is read or written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy import helpers, jsontext, tiers, yamltext
from ovsfw.policy.assembly import Assembly
from ovsfw.policy.assertion_reader import Located
from ovsfw.policy.assertions import Outcome, failure_text, judge
from ovsfw.policy.model import Policy, Port, Rule
from ovsfw.policy.places import Builder, Node, Path, Place, place_of, show
from ovsfw.policy.report import Report
from ovsfw.policy.rules import unmatchable
from ovsfw.policy.suppressions import Suppression

EXPECTED = "expected a mapping with security_groups, address_groups, tiers and ports"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Document:
    """A policy, and what its document says about it.

    `written` are the assertions as they were written, with ids; `suppressions` are for the audit.
    """

    policy: Policy
    assertions: tuple[Located, ...]
    written: tuple[Mapping[str, object], ...]
    suppressions: tuple[Suppression, ...]
    _report: Report
    _paths: Mapping[tuple[str, str], Path]

    def locate(self, about: tuple[str, str], message: str) -> Problem:
        """Something to say about an object of the policy, by its collection (rules too) and its id."""
        return self._report.locate(self._paths[about], message)

    def judge(self) -> tuple[Outcome, ...]:
        """Decide the assertions, in the order of the document."""
        return tuple(judge(self.policy, [located.assertion for located in self.assertions]))

    def failures(self, outcomes: Iterable[Outcome]) -> list[Problem]:
        """The assertions that do not hold, each with its place."""
        pairs = zip(self.assertions, outcomes, strict=True)
        return [
            self._report.locate(located.path, failure_text(self.policy, outcome))
            for located, outcome in pairs
            if not outcome.holds
        ]


def read(text: bytes | str, source: str) -> Document:
    """What a document says; `source` is what messages call it.  Assertions are read, but not judged.

    Raises PolicyError with every problem, in the order of the document.
    """
    decoded = _decode(text, source).removeprefix(_BYTE_ORDER_MARK)
    value, report = _load(decoded, source)
    if not isinstance(value, dict) or not value:
        what = "nothing in it" if value in (None, {}) else f"{show(value)} at the top"
        report.add((), f"{what}; {EXPECTED}")
        value = {}
    document = _assembled(value, report)
    report.raise_if_any()
    return document


def _assembled(value: Mapping[str, object], report: Report) -> Document:
    assembly = Assembly(value, report)
    policy, assertions = assembly.policy(), assembly.assertions()
    listed = value.get("assertions")
    given = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    written = tuple({**each, "id": located.assertion.id} for each, located in zip(given, assertions, strict=False))
    return Document(policy, assertions, written, assembly.suppressions(), report, assembly.paths())


def parse(text: bytes | str, source: str) -> Policy:
    """The policy that a document describes, if its assertions hold.  Raises PolicyError with everything wrong."""
    document = read(text, source)
    failures = document.failures(document.judge())
    if failures:
        raise PolicyError(failures)
    return document.policy


def read_values(value: Mapping[str, object], source: str) -> Policy:
    """The policy that the values of a document make, which have no places in a text.

    Raises PolicyError with every problem; its paths name objects by their ids, `ports[vm1].mac_address`.
    """
    return _read_values(value, source).policy


def judge_values(value: Mapping[str, object], source: str) -> Document:
    """The same with the assertions, which hold.  Raises PolicyError with everything wrong."""
    document = _read_values(value, source)
    if failures := document.failures(document.judge()):
        raise PolicyError(failures)
    return document


def _read_values(value: Mapping[str, object], source: str) -> Document:
    report = Report(source, lambda: Node(Place(0, 0)))
    document = _assembled(value, report)
    try:
        report.raise_if_any()
    except PolicyError as error:
        named = [replace(problem, path=_with_ids(problem.path, value)) for problem in error.problems]
        raise PolicyError(named) from None
    return document


def _with_ids(path: str, value: object) -> str:
    """A path whose indexes into lists of objects are replaced by the ids there."""
    named = ""
    for step, key, index in re.findall(r"(\.?([\w:-]+)|\[(\d+)\]|\[.*)", path):
        if index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
            named += f"[{value['id']}]" if isinstance(value, dict) and isinstance(value.get("id"), str) else step
        else:
            value = value.get(key) if isinstance(value, dict) else None
            named += step
    return named


def _decode(text: bytes | str, source: str) -> str:
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.encode()  # the readers need text that can be
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        message = f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        raise PolicyError([Problem(message, "", source, *place_of(before, len(before)))]) from None
    except UnicodeEncodeError as error:
        message = f"the character {error.object[error.start]!a} is not allowed here"
        raise PolicyError([Problem(message, "", source, *place_of(error.object, error.start))]) from None
    return text


def _load(text: str, source: str) -> tuple[object, Report]:
    builder = Builder(source)
    if not jsontext.looks_like_json(text):
        yamltext.read(text, builder)
        return builder.value, Report(source, lambda: builder.node, builder.problems)

    def places() -> Node:
        again = Builder(source)
        jsontext.walk(text, again)
        return again.node

    value = jsontext.read(text, builder)
    return value, Report(source, places, builder.problems)


def warnings(policy: Policy) -> list[str]:
    """What is allowed, but surely not meant; one sentence each, in the order of the ids."""
    texts = [text for rule in policy.rules for text in _of_rule(rule)]
    texts += tiers.warnings(policy)
    return texts + [text for port in policy.ports.values() for text in _of_port(port)]


def _of_rule(rule: Rule) -> Iterator[str]:
    if why := unmatchable(rule):
        yield f"rule {rule.id} allows nothing: {why}"
    if why := helpers.elsewhere(rule):
        yield f"rule {rule.id}: {why}"
    if rule.protocol == 0:
        yield f"rule {rule.id} is for IP protocol 0 (hop-by-hop options); leave protocol out to mean any protocol"


def _of_port(port: Port) -> Iterator[str]:
    for pair in port.pairs:
        if not pair.prefix.length:
            yield (
                f"port {port.id} may send from any {pair.prefix.family.ethertype} address: "
                f"the allowed address pair {pair.prefix} turns its spoof guard off"
            )
