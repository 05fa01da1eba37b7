"""What an audit says: findings, and how bad they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is."""

    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: what it is about (the collection of the document and the id), and what to do."""

    kind: str
    severity: Severity
    about: tuple[str, str]
    message: str
    advice: str

    @property
    def id(self) -> str:
        """`world-open:web/ingress-ipv4-tcp-22`."""
        return f"{self.kind}:{self.about[1]}"
