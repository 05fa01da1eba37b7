"""Waiting no longer than so long, and not at all for whoever is told to end."""

from __future__ import annotations

import asyncio

import pytest

from ovsfw.waiting import within


def test_what_comes_in_time_is_handed_over() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    async def broken() -> None:
        raise ValueError("broken")

    assert asyncio.run(within(work(), 10)) == 7
    assert asyncio.run(within(work(), None)) == 7
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(within(broken(), 10))


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
def test_what_does_not_is_ended(seconds: float) -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def late() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await within(work(), seconds)
        assert ended

    asyncio.run(late())


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_is_never_lost(turns: int) -> None:
    """However many turns of the loop after the event it comes."""

    async def told() -> None:
        event = asyncio.Event()

        async def go_on() -> None:
            while True:
                await within(event.wait(), 60)
                event.clear()

        running = asyncio.create_task(go_on())
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=5)
        running.cancel()
        assert running in done
        assert running.cancelled()

    asyncio.run(told())
