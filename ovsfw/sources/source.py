"""What the daemon asks of every place a policy may come from.

A source is level, not edge: it answers "what is the policy now?" and calls `wake` when the answer may have changed.
Not known is not empty (law 10): until the first whole policy is here, `policy` is None, and nothing is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ovsfw.policy.model import Policy


@dataclass(frozen=True, slots=True)
class SourceState:
    """How well a source is.

    `generation` is the source's own word for the policy that it gave last, empty before the first.  `problem` says why
    that policy may be old (the file is wrong, the database is away), in lines that a user can act on; empty when all is
    well.  `since` is the time (seconds of time.time()) from which on `problem` has held, or the policy has been known.
    `refused`: there is something to read, and it is refused.
    """

    generation: str = ""
    problem: str = ""
    since: float = 0.0
    refused: bool = False


class Source(Protocol):
    """A policy, and news of it; lives in the loop of the daemon."""

    async def start(self, wake: Callable[[], None]) -> None:
        """Begin to look.  Returns at once; `wake` is called in the loop whenever `policy` or `state` may differ.

        Raises ConfigError for what can never work; what may come later (a missing file, a server that is away) is a
        problem in `state`.
        """

    def policy(self) -> Policy | None:
        """The newest good policy; None while none is known.  The same object as long as nothing has changed."""

    def state(self) -> SourceState:
        """How well it is."""

    def plugged(self, port_ids: frozenset[str]) -> None:
        """Which ports (external_ids:iface-id) are on this host, so that a source for many hosts asks for these only."""

    async def applied(self, policy: Policy, ports: frozenset[str]) -> None:
        """The flows of this policy, as `policy` gave it, are on the switch, for these ports of it.  Never raises."""

    def reload(self) -> None:
        """Look again now, even if nothing seems to have changed (SIGHUP)."""

    async def close(self) -> None:
        """Stop; doing it again is fine."""
