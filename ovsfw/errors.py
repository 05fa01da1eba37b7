"""The exceptions of ovsfw, split by whose fault it is.

`OvsfwError` is the common base and is never raised itself.  Every message is one a user can act on: it names the
place and says what to do.  A bug is any other exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OvsfwError(Exception):
    """Base of all errors that are shown to a user without a traceback."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a policy document.

    `path` is dotted with list indexes (`security_groups[0].rules[2].protocol`); `line` and `column` count from 1 and
    are 0 where the document has no such place (an empty file).
    """

    message: str
    path: str = ""
    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """`file:line:column: path: message`, leaving out what is unknown."""
        place = self.source
        if self.line:
            place += f":{self.line}:{self.column}"
        return ": ".join(part for part in (place, self.path, self.message) if part)


class PolicyError(OvsfwError):
    """The policy is wrong; carries every problem found, in document order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SwitchError(OvsfwError):
    """Open vSwitch is away, refused something, or cannot do what is asked."""


class StoreError(OvsfwError):
    """The policy database is away, refuses something, or is not what it should be."""


class StoreAwayError(StoreError):
    """The policy database cannot be reached now; later it may be."""


class ConfigError(OvsfwError):
    """ovsfw was started or installed wrongly."""
