"""Waiting for hosts is honest: the late are waited for and named, the dead are told apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from ovsfw.errors import StoreError
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import edit, transact
from ovsfw.store.report import DEAD_AFTER, Reporter, Word
from ovsfw.store.waiting import forget_host, status, wait_for_hosts

pytestmark = pytest.mark.ovs


async def host(remote: Remote, name: str, generation: int, *, silent: float = 0, problem: str = "") -> None:
    row = {"name": name, "generation": generation, "last_seen": int(time.time() - silent), "problem": problem}
    async with connected(remote) as connection:
        await transact(connection, [{"op": "insert", "table": "Host", "row": {**row, "ports": ["set", ["vm1"]]}}])


@pytest.fixture
def generation(remote: Remote) -> Iterator[int]:
    """The one that there is; hosts of other tests are gone."""
    yield asyncio.run(edit(remote, lambda _: {})).generation
    for each in asyncio.run(status(remote)).hosts:
        asyncio.run(forget_host(remote, each.name))


def test_a_late_host_is_named_with_its_reason(remote: Remote, generation: int) -> None:
    asyncio.run(host(remote, "quick", generation))
    asyncio.run(host(remote, "slow", generation - 1, problem="the bridge is gone"))
    with pytest.raises(StoreError, match=rf"host slow has generation {generation - 1}, not {generation}.*is gone"):
        asyncio.run(wait_for_hosts(remote, generation, 0.1))


def test_a_dead_host_is_told_and_not_waited_for(remote: Remote, generation: int) -> None:
    asyncio.run(host(remote, "quick", generation))
    asyncio.run(host(remote, "dead", 0, silent=DEAD_AFTER + 5))
    found = asyncio.run(wait_for_hosts(remote, generation, 5))
    assert [each.name for each in found.dead] == ["dead"]
    assert found.conflicts == {}, "a dead host claims nothing"


def test_a_port_on_two_hosts_is_told(remote: Remote, generation: int) -> None:
    asyncio.run(host(remote, "one", generation))
    asyncio.run(host(remote, "two", generation))
    assert asyncio.run(status(remote)).conflicts == {"vm1": ("one", "two")}


def test_a_host_is_waited_for_until_it_has_it(remote: Remote, generation: int) -> None:
    """It says so at once, not at its next turn."""

    async def story() -> None:
        reporter = Reporter(remote, "h", say_every=3600)
        task = asyncio.create_task(reporter.run())
        reporter.say(Word(generation - 1), awaited=0)
        while not (await status(remote)).hosts:  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(wait_for_hosts(remote, generation, 30))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        reporter.say(Word(generation), awaited=generation)
        assert (await waiting).late(generation) == ()
        task.cancel()

    asyncio.run(story())
