"""The `assertions` of a document into values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ovsfw.policy.addresses import Family
from ovsfw.policy.assertions import Assertion, Selector
from ovsfw.policy.places import Path, format_path, show
from ovsfw.policy.report import Report
from ovsfw.policy.schema import AssertionShape, read
from ovsfw.policy.selectors import SelectorReader, check_service, texts


class Located(NamedTuple):
    """An assertion and where it stands."""

    assertion: Assertion
    path: Path


class AssertionReader:
    """Reads all assertions of a document; their ids are unique."""

    def __init__(self, selectors: SelectorReader, report: Report) -> None:
        self._selectors = selectors
        self._report = report
        self._ids: dict[str, Path] = {}

    def read(self, data: object, path: Path) -> Located | None:
        """One assertion; None, reported, where it is none."""
        found = read(AssertionShape, data, path, self._report)
        if found is None:
            return None
        shape, wrong = found
        expected = self._expected(shape, path, wrong)
        if expected is None or not wrong.isdisjoint({"from", "to", "ethertype", "ether_type"}):
            return None
        families = tuple(Family) if shape.ethertype is None else (shape.ethertype,)
        assertion = Assertion(
            shape.id or self._sentence(shape, expected),
            expected == "allowed",
            self._who(shape.from_, (*path, "from")),
            self._who(shape.to, (*path, "to")),
            self._what(getattr(shape, expected), (*path, expected), families),
            self._who(shape.except_from, (*path, "except_from")),
            self._who(shape.except_to, (*path, "except_to")),
            self._what(shape.except_services, (*path, "except_services"), families),
            families,
        )
        self._claim(assertion.id, path)
        return Located(assertion, path)

    def _expected(self, shape: AssertionShape, path: Path, wrong: frozenset[str]) -> str | None:
        given = [key for key in ("allowed", "denied") if getattr(shape, key) is not None]
        if len(given) == 1:
            return given[0]
        if given:
            self._report.add((*path, "denied"), "given besides allowed; make two assertions of it")
        elif wrong.isdisjoint({"allowed", "denied"}):
            self._report.add(path, "allowed or denied is required: the services that must be so, like tcp/443, or any")
        return None

    def _who(self, value: object, path: Path) -> tuple[Selector, ...]:
        read_ = (self._selectors.read(text, place) for text, place in texts(value, path, self._report))
        return tuple(selector for selector in read_ if selector is not None)

    def _what(self, value: object, path: Path, families: tuple[Family, ...]) -> tuple[str, ...]:
        words = texts(value, path, self._report)
        return tuple(text for text, place in words if check_service(text, families, place, self._report))

    def _claim(self, identifier: str, path: Path) -> None:
        first = self._ids.setdefault(identifier, path)
        if first != path:
            self._report.add(path, f"{show(identifier)} is the id of {format_path(first)} already")

    def _sentence(self, shape: AssertionShape, expected: str) -> str:
        """`web to db: tcp/5432 allowed`: an id that can be read, for an assertion without one."""
        text = f"{_listed(shape.from_)} to {_listed(shape.to)}: {_listed(getattr(shape, expected))} {expected}"
        but = [shape.except_from, shape.except_to, shape.except_services]
        for word, value in zip(("except from", "except to", "except"), but, strict=True):
            if value is not None:
                text += f", {word} {_listed(value)}"
        return text if shape.ethertype is None else f"{text} ({shape.ethertype.ethertype})"


def _listed(value: object) -> str:
    values: Iterable[object] = value if isinstance(value, list) else [value]
    return ", ".join(str(each) for each in values)
