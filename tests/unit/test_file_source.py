"""A policy file that changes while it is watched."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ovsfw.sources.file import FileSource
from ovsfw.sources.source import Source

ONE = "ports: [{id: vm1, mac_address: '52:54:00:00:00:01'}]\n"
TWO = ONE.replace("vm1", "vm2")
WRONG = "ports: [{id: vm1, colour: red}, {id: vm2, mac_address: 7}]\n"


class Watched:
    """A file source that looks often, and its news."""

    def __init__(self, path: Path) -> None:
        self.source = FileSource(path, look_every=0.01)
        self.news = 0

    def wake(self) -> None:
        self.news += 1

    async def until(self, condition: Callable[[FileSource], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition(self.source):
            assert time.monotonic() < deadline, self.source.state()
            await asyncio.sleep(0.005)

    def names(self) -> list[str]:
        policy = self.source.policy()
        return [] if policy is None else sorted(policy.ports)


@asynccontextmanager
async def watched(path: Path) -> AsyncIterator[Watched]:
    found = Watched(path)
    await found.source.start(found.wake)
    try:
        yield found
    finally:
        await found.source.close()
        await found.source.close()


def test_it_is_a_source(tmp_path: Path) -> None:
    source: Source = FileSource(tmp_path)
    assert source.policy() is None, "not known is not empty"


def test_a_file_that_comes_changes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"

    async def run() -> None:
        async with watched(path) as file:
            await file.until(lambda source: "No such file" in source.state().problem)
            assert file.names() == []
            assert not file.source.state().refused
            path.write_text(ONE)
            await file.until(lambda source: source.policy())
            first = file.source.state()
            assert (file.names(), first.problem, len(first.generation)) == (["vm1"], "", 12)
            path.write_text(WRONG)
            await file.until(lambda source: source.state().problem)
            problems = file.source.state().problem.splitlines()
            assert len(problems) >= 2, "every problem"
            assert file.source.state().refused
            assert all(line.startswith(f"{path}:1:") for line in problems)
            assert (file.names(), file.source.state().generation) == (["vm1"], first.generation)
            (tmp_path / "new").write_text(TWO)
            (tmp_path / "new").rename(path)
            await file.until(lambda source: not source.state().problem)
            assert file.names() == ["vm2"]
            path.unlink()
            await file.until(lambda source: "No such file" in source.state().problem)
            assert file.names() == ["vm2"]
            path.mkdir()
            await file.until(lambda source: "not a regular file" in source.state().problem)
            assert file.names() == ["vm2"]

    asyncio.run(run())


def test_a_file_that_is_touched_is_no_news(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(ONE)

    async def run() -> None:
        async with watched(path) as file:
            await file.until(lambda source: source.policy())
            before, news = file.source.policy(), file.news
            os.utime(path, (1, 1))
            file.source.reload()
            path.write_text(WRONG)
            await file.until(lambda source: source.state().problem)
            path.write_text(ONE)
            await file.until(lambda source: not source.state().problem)
            assert file.source.policy() is before
            assert file.news == news + 2, "wrong, and right again"

    asyncio.run(run())


def test_a_reload_reads_what_looks_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(ONE)
    os.utime(path, (1, 1))

    async def run() -> None:
        async with watched(path) as file:
            await file.until(lambda source: source.policy())
            path.write_text(TWO)
            os.utime(path, (1, 1))
            await asyncio.sleep(0.1)
            assert file.names() == ["vm1"], "same size, time and inode"
            file.source.reload()
            await file.until(lambda _: file.names() == ["vm2"])

    asyncio.run(run())


def test_a_file_in_the_middle_of_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(ONE)

    async def run() -> None:
        async with watched(path) as file:
            await file.until(lambda source: source.policy())
            with path.open("w") as half:
                for letter in TWO:
                    half.write(letter)
                    half.flush()
                    await asyncio.sleep(0)
            await file.until(lambda _: file.names() == ["vm2"])
            assert file.source.state().problem == ""

    asyncio.run(run())
