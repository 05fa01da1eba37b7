"""Which ids and names a policy document gives to its objects, so that references to them can be judged."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from ovsfw.policy.places import Path, format_path, show
from ovsfw.policy.report import Report


class Names:
    """The objects of one kind.

    An object without an id is known by its name.  Objects that are wrong otherwise count: a reference to them is none
    of their problems.
    """

    def __init__(self, kind: str, collection: str, objects: Sequence[object]) -> None:
        self.kind = kind
        self._ids: dict[str, Path] = {}
        self._by_name: dict[str, list[str]] = {}
        for index, data in enumerate(objects):
            if isinstance(data, dict):
                self._add(data, (collection, index))

    def _add(self, data: dict[str, object], path: Path) -> None:
        name = data.get("name")
        identifier = name if data.get("id") is None else data["id"]
        if not isinstance(identifier, str):
            return
        self._ids.setdefault(identifier, path)
        if isinstance(name, str):
            self._by_name.setdefault(name, []).append(identifier)

    def paths(self) -> dict[str, Path]:
        """Where each object stands, by its id."""
        return dict(self._ids)

    def __iter__(self) -> Iterator[str]:
        """Everything that a reference could say, sorted."""
        return iter(sorted(self._ids.keys() | self._by_name.keys()))

    def matching(self, reference: str) -> list[str]:
        """The ids that a reference can mean: the one that is it, or else those of all objects of that name, sorted."""
        return [reference] if reference in self._ids else sorted(self._by_name.get(reference, []))

    def claim(self, identifier: str, path: Path, report: Report) -> None:
        """Report an id that an earlier object has."""
        first = self._ids.get(identifier, path)
        if first != path[: len(first)]:
            report.add(path, f"{show(identifier)} is the id of {format_path(first)} already")

    def resolve(self, reference: str, path: Path, report: Report) -> str | None:
        """The id that a reference means: an id, or a name that only one object has.  Reports when there is none."""
        found = self.matching(reference)
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(found)
            report.add(path, f"{len(found)} {self.kind}s are named {show(reference)}; use the id of one ({ids})")
            return None
        near = difflib.get_close_matches(reference, list(self), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        report.add(path, f"no {self.kind} has the id or name {show(reference)}{hint}")
        return None
