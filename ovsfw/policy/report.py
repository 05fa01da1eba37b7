"""Collects what is wrong with a policy document, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy.places import Node, Path, format_path, in_order

# More than anybody reads at once.
MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class _Finding:
    message: str
    path: Path
    at_key: bool


@dataclass(slots=True)
class Report:
    """Problems by path; places are looked up only when there are any, for they may cost another reading."""

    source: str
    places: Callable[[], Node]
    problems: list[Problem] = field(default_factory=list)
    _findings: list[_Finding] = field(default_factory=list)

    def add(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Something is wrong with the value at a path, or with its key."""
        self._findings.append(_Finding(message, path, at_key))

    def locate(self, path: Path, message: str) -> Problem:
        """Something to say about the value at a path."""
        return Problem(message, format_path(path), self.source, *self.places().find(path))

    def raise_if_any(self) -> None:
        """Raise PolicyError with every problem, in document order; the first hundred when there are more."""
        if not self._findings and not self.problems:
            return
        # What is wrong as text is not worth a second complaint about what it means.
        said = {(problem.line, problem.column, problem.path) for problem in self.problems}
        meant = [problem for problem in self._located() if (problem.line, problem.column, problem.path) not in said]
        problems = in_order(self.problems + meant)
        more = len(problems) - MAX_PROBLEMS
        if more > 0:
            words = "1 more problem" if more == 1 else f"{more:,} more problems"
            problems[MAX_PROBLEMS:] = [Problem(f"and {words}", source=self.source)]
        raise PolicyError(problems)

    def _located(self) -> list[Problem]:
        if not self._findings:
            return []
        top = self.places()
        return [
            Problem(
                finding.message, format_path(finding.path), self.source, *top.find(finding.path, key=finding.at_key)
            )
            for finding in self._findings
        ]
