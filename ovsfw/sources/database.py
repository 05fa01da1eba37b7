"""A policy from the policy database, or as much of it as this host needs.

What was known stays until something newer of the same database is known, and known whole.  A database that is away,
empty, another one or older than what was applied is a problem in `state`, and never a reason to touch a flow.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ovsfw.errors import PolicyError
from ovsfw.policy.model import Policy
from ovsfw.sources.source import SourceState
from ovsfw.store.client import Remote
from ovsfw.store.copy import Copy, Top
from ovsfw.store.report import SAY_EVERY, Reporter, Word

# How many policies may be on their way to the switch at a time.
_ON_THE_WAY = 64


class _Given(NamedTuple):
    """A policy, and the newest generation that it is known to be right for."""

    policy: Policy
    identity: str
    generation: int


class DatabaseSource:
    """The policy database, as one host sees it."""

    def __init__(self, remote: Remote, host: str, say_every: float = SAY_EVERY) -> None:
        """`host` is what this host is called there; with TLS, it must be the name in its certificate."""
        self._remote = remote
        self._copy: Copy | None = None
        self._reporter = Reporter(remote, host, say_every)
        self._talker: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] = lambda: None
        self._plugged: frozenset[str] | None = None
        self._given: deque[_Given] = deque(maxlen=_ON_THE_WAY)
        self._reached = 0
        self._ready: frozenset[str] = frozenset()  # ports that have their flows
        self._state = SourceState(problem=self._away(), since=time.time())

    async def start(self, wake: Callable[[], None]) -> None:
        """Begin to look.  Returns at once.  Raises ConfigError when the files for TLS are wrong."""
        if self._remote.tls is not None:
            self._remote.tls.context()
        self._wake = wake
        self._copy = Copy(self._remote, self._look)
        if self._plugged is not None:
            self._copy.plug(self._plugged)
        self._talker = asyncio.create_task(self._reporter.run())

    def policy(self) -> Policy | None:
        """The newest good policy; None while none is known."""
        return self._given[-1].policy if self._given else None

    def state(self) -> SourceState:
        """How well it is."""
        return self._state

    def plugged(self, port_ids: frozenset[str]) -> None:
        """Ask for the rows of these ports, and say in the database that they are here."""
        if port_ids != self._plugged:
            self._plugged = port_ids
            self._ready &= port_ids
            if self._copy is not None:
                self._copy.plug(port_ids)
            self._say()

    async def applied(self, policy: Policy, ports: frozenset[str]) -> None:
        """Say in the database which generation is in the flows, and for which ports."""
        for given in self._given:
            if given.policy is policy:
                self._reached = given.generation
        self._ready = ports & (self._plugged or frozenset())
        self._say()

    def reload(self) -> None:
        """Connect again: the database tells of every change by itself."""
        if self._copy is not None:
            self._copy.reconnect()

    async def close(self) -> None:
        """Stop; doing it again is fine."""
        if self._talker is not None:
            while not self._talker.done():  # before Python 3.12, wait_for may lose a cancellation
                self._talker.cancel()
                await asyncio.wait([self._talker], timeout=1)
        if self._copy is not None:
            await self._copy.close()

    def _look(self) -> None:
        """Something may have changed."""
        policy, state = self.policy(), self._state
        self._become(*self._problem())
        if self.policy() is not policy or self._state != state:
            self._wake()
        self._say()

    def _problem(self) -> tuple[str, bool]:
        """Take the policy that is there, or say why not, and whether it is refused."""
        copy = self._copy
        if copy is None or not copy.is_live:
            return self._away(), False
        top = copy.top()
        if top is None or not top.generation:
            return f"{self._remote}: there is no policy in the database; put one in with: ovsfw db import FILE", False
        if refusal := self._refusal(top):
            return refusal, True
        if self._plugged is None or not copy.is_settled:
            return "" if self._given else f"{self._remote}: the policy is being read", False
        try:
            self._take(copy.part.policy(), top)
        except PolicyError as error:
            return str(error), True
        return "", False

    def _away(self) -> str:
        known = f"generation {self._given[-1].generation} stands" if self._given else "nothing is known yet"
        return f"{self._remote}: no connection to the policy database; {known}"

    def _refusal(self, top: Top) -> str:
        """Why this is not the database that we know, unless an operator has said that it is right."""
        if not self._given:
            return ""
        _, identity, generation = self._given[-1]
        if top.trusted > generation or (top.identity == identity and top.generation >= generation):
            return ""
        what = (
            f"is older (generation {top.generation}) than what is applied here ({generation})"
            if top.identity == identity
            else f"is another one than that which is applied here (generation {generation})"
        )
        return f"{self._remote}: the policy database {what}; if it is right, say so with: ovsfw db trust"

    def _take(self, policy: Policy, top: Top) -> None:
        current = self._given[-1] if self._given else None
        if current is None or current.policy != policy:
            self._given.append(_Given(policy, top.identity, top.generation))
            return
        self._given[-1] = _Given(current.policy, top.identity, top.generation)
        if self._reached == current.generation:  # nothing of this host has changed: it has that one, too
            self._reached = top.generation

    def _become(self, problem: str, refused: bool) -> None:  # noqa: FBT001 - as `_problem` says it
        generation = str(self._given[-1].generation) if self._given else ""
        if (generation, problem) != (self._state.generation, self._state.problem):
            same = problem == self._state.problem and problem
            self._state = SourceState(generation, problem, self._state.since if same else time.time(), refused)

    def _say(self) -> None:
        top = self._copy.top() if self._copy is not None else None
        ports, ready = tuple(sorted(self._plugged or ())), tuple(sorted(self._ready))
        problem = self._state.problem if self._copy is not None and self._copy.is_live else ""
        self._reporter.say(Word(self._reached, ports, ready, problem), awaited=top.awaited if top else 0)
