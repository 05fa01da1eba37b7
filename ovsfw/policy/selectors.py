"""The words of an assertion: whom it is about, and which services."""

from __future__ import annotations

import difflib
import re

from ovsfw.policy import services
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.assertions import OnePort, Selector, Whoever
from ovsfw.policy.model import RemoteAddressGroup, RemoteGroup
from ovsfw.policy.names import Names
from ovsfw.policy.places import Path, show
from ovsfw.policy.report import Report

_ADDRESS = re.compile(r"[0-9.]{7,15}(/[0-9]{1,2})?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?")
_KINDS: dict[str, type[OnePort | RemoteGroup | RemoteAddressGroup]] = {
    "port": OnePort,
    "group": RemoteGroup,
    "addresses": RemoteAddressGroup,
}


def texts(value: object, path: Path, report: Report) -> list[tuple[str, Path]]:
    """One text, or a list of texts, each with its place; numbers count as texts, for protocols have numbers."""
    if isinstance(value, list):
        if not value:
            report.add(path, "an empty list; leave the key out, or name something")
        given = [(one, (*path, index)) for index, one in enumerate(value)]
    else:
        given = [(value, path)] if value is not None else []
    found = []
    for one, place in given:
        if isinstance(one, (str, int)) and not isinstance(one, bool):
            found.append((str(one), place))
        else:
            report.add(place, f"{show(one)} is not text")
    return found


class SelectorReader:
    """Reads whom an assertion is about; names are those of the document."""

    def __init__(self, ports: Names, groups: Names, address_groups: Names, report: Report) -> None:
        self._names = {"port": ports, "group": groups, "addresses": address_groups}
        self._report = report

    def read(self, text: str, path: Path) -> Selector | None:
        """A selector; None, reported, where the text is none."""
        if text in set(Whoever):
            return Whoever(text)
        kind, colon, name = text.partition(":")
        if colon and kind in _KINDS:
            identifier = self._names[kind].resolve(name, path, self._report)
            return _KINDS[kind](identifier) if identifier is not None else None
        if _ADDRESS.fullmatch(text):
            return self._prefix(text, path)
        return self._named(text, path)

    def _prefix(self, text: str, path: Path) -> Prefix | None:
        try:
            return Prefix.parse(text)
        except ValueError as error:
            self._report.add(path, str(error))
            return None

    def _named(self, text: str, path: Path) -> Selector | None:
        """A bare name: of whatever has it, if only one has."""
        found = [(kind, name) for kind, names in self._names.items() for name in names.matching(text)]
        if len(found) == 1:
            kind, name = found[0]
            return _KINDS[kind](name)
        if found:
            choices = ", ".join(f"{kind}:{name}" for kind, name in found)
            self._report.add(path, f"{show(text)} can mean {choices}; say which")
            return None
        everything = {str(word.value) for word in Whoever}.union(*self._names.values())
        near = difflib.get_close_matches(text, sorted(everything), n=1)
        hint = f"did you mean {near[0]}?" if near else "outside, ports, any, addresses and prefixes can stand here, too"
        self._report.add(path, f"nothing has the id or name {show(text)}; {hint}")
        return None


def check_service(text: str, families: tuple[Family, ...], path: Path, report: Report) -> bool:
    """Whether a text is a service of one of the families; reported where it is not."""
    try:
        if any(services.parse(text, family) for family in families):
            return True
    except ValueError as error:
        report.add(path, str(error))
        return False
    report.add(path, f"{show(text)} is no service of {families[0].ethertype}")
    return False
