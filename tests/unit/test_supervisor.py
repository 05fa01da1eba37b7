"""Tasks that fail: they are started again, others do not notice."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ovsfw.errors import SwitchError
from ovsfw.supervisor import Backoff, Supervisor


def test_pauses_grow_and_begin_anew() -> None:
    backoff = Backoff(0.1, 0.5)
    assert [backoff.pause() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    backoff.reset()
    assert backoff.pause() == 0.1


@pytest.mark.parametrize("error", [SwitchError("away"), OSError(28, "No space left on device"), KeyError("bug")])
def test_a_task_that_fails_is_started_again_and_hurts_no_other(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    supervisor = Supervisor()

    async def failing() -> None:
        if len(done) < 2:
            done.append("failed")
            raise error
        supervisor.stop()

    async def steady() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            done.append("steady until the end")
            raise

    supervisor.add("failing", failing)
    supervisor.add("steady", steady)
    with caplog.at_level(logging.WARNING):
        asyncio.run(supervisor.run())
    assert done == ["failed", "failed", "steady until the end"]
    assert (supervisor.states["failing"].failures, supervisor.states["steady"].failures) == (2, 0)
    assert ("Traceback" in caplog.text) == isinstance(error, KeyError)
    assert caplog.text.count("failing: ") == (2 if isinstance(error, KeyError) else 1), "said again only when new"


def test_a_task_may_be_finished() -> None:
    supervisor = Supervisor()

    async def once() -> None:
        supervisor.stop()

    supervisor.add("once", once)
    asyncio.run(supervisor.run())
    assert supervisor.states["once"].failures == 0


def test_a_task_that_misses_its_cancellation_is_cancelled_again() -> None:
    supervisor = Supervisor()
    missed: list[str] = []

    async def deaf() -> None:
        supervisor.stop()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            missed.append("once")
        await asyncio.Event().wait()

    supervisor.add("deaf", deaf)
    asyncio.run(asyncio.wait_for(supervisor.run(), 30))
    assert missed == ["once"]
