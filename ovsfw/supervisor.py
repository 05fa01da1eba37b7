"""Tasks that go on for years: one that fails is started again after a pause, and hurts no other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ovsfw.errors import OvsfwError

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
CANCEL_AGAIN = 0.5


class Backoff:
    """Pauses in seconds, each twice the one before, up to the longest; its state is the next one."""

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def pause(self) -> float:
        """How long to wait now."""
        now, self._next = self._next, min(self._next * 2, self._longest)
        return now

    def reset(self) -> None:
        """Things go well: begin with short pauses again."""
        self._next = self._first


@dataclass(slots=True)
class TaskState:
    """How often a task has failed, why it did last, and when (seconds of time.time())."""

    failures: int = 0
    problem: str = ""
    when: float = 0.0


class Supervisor:
    """Runs tasks side by side until it is told to stop."""

    def __init__(self) -> None:
        """Nothing to run yet."""
        self._work: dict[str, Callable[[], Awaitable[None]]] = {}
        self.states: dict[str, TaskState] = {}
        self._stopping = asyncio.Event()

    def add(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Let `work` be done, for ever or until it returns; before `run`."""
        self._work[name] = work
        self.states[name] = TaskState()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    async def run(self) -> None:
        """Do everything until `stop`; then all tasks are cancelled, and have ended when this returns."""
        tasks = [asyncio.create_task(self._keep(name, work), name=name) for name, work in self._work.items()]
        try:
            await self._stopping.wait()
        finally:
            await _end(tasks)

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        backoff, state = Backoff(), self.states[name]
        while True:
            began = time.monotonic()
            try:
                await work()
            except (OvsfwError, OSError) as error:
                problem = str(error)
                if problem != state.problem:
                    logger.warning("%s: %s", name, problem)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                logger.exception("%s: this is a bug of ovsfw; it is started again", name)
            else:
                return
            if time.monotonic() - began > LONGEST_PAUSE:
                backoff.reset()
            state.failures, state.problem, state.when = state.failures + 1, problem, time.time()
            await asyncio.sleep(backoff.pause())


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: before Python 3.12, `asyncio.wait_for` may swallow a cancellation (gh-86296)."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
