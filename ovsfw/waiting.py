"""Waiting no longer than so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(work: Awaitable[T], seconds: float | None) -> T:
    """What comes of it within so many seconds, or at all (None).  Raises asyncio.TimeoutError, and ends the work then.

    As asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes together with the result (CPython
    issue 86296): whoever is told to end then goes on.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
        raise asyncio.TimeoutError
    return task.result()


async def _end(task: asyncio.Future[T]) -> None:
    """Whatever comes of it, nobody asks any more."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
