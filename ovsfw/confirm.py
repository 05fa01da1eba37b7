"""A change on trial: it is taken back unless somebody confirms it in time.

What is put back are the flows that were read before, and the connections that were cut or revived.  Whatever ends the
wait (time, Ctrl-C, SIGTERM, the end of the terminal) takes the change back; where the command is killed, its guardian
does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ovsfw.apply import Bridge, Comparison, compare_with, opened
from ovsfw.compiler import Program
from ovsfw.connections import Due
from ovsfw.errors import ConfigError, OvsfwError, SwitchError
from ovsfw.guardian import Guardian
from ovsfw.policy.model import Policy
from ovsfw.policy.paged import Paged
from ovsfw.reconciler import Enforced, carry_out, change_between, enforce, read
from ovsfw.settling import Settling
from ovsfw.switch.rundir import rundir_of
from ovsfw.waiting import within

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEEP, _KEPT = b"keep\n", b"kept\n"


@dataclass(frozen=True, slots=True)
class Trial:
    """How long to wait, and whom to tell that the change is made and waits."""

    seconds: float
    announce: Callable[[Comparison], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `ended` is why it was taken back, "" when it was kept."""

    comparison: Comparison
    ended: str = ""


def apply_on_trial(policy: Policy, db: str, bridge: str, trial: Trial) -> Outcome:
    """Apply a policy, wait for somebody to confirm it, else take it back.

    Raises ConfigError when another change is on trial already, SwitchError when the switch refuses; where the change
    was made already, it has been taken back then, or the error says that it could not be.
    """
    guardian: Guardian[Program | Due] = Guardian(lambda told: _finish(db, bridge, told))
    try:
        return asyncio.run(_apply_on_trial(policy, db, bridge, trial, guardian))
    finally:
        guardian.release()


async def _apply_on_trial(
    policy: Policy, db: str, bridge: str, trial: Trial, guardian: Guardian[Program | Due]
) -> Outcome:
    async with opened(db, bridge) as held, _waiting(_socket(db, bridge)) as answer:
        before = await compare_with(held, policy)
        as_before = _as_before(before)
        guardian.tell(as_before)
        settling, done = Settling(held.channel), list[Due]()

        def note(due: Due) -> None:
            done.append(due)
            guardian.tell(due)

        settling.on_done = note
        try:
            wanted = Enforced(policy, held.bindings, before.change)
            await enforce(held.channel, settling, wanted, is_new=True)
            comparison = replace(before, settled=await settling.finish())
            trial.announce(comparison)
            ended = await answer.within(trial.seconds)
        except BaseException:
            await _take_back(held, as_before, done)
            raise
        if ended:
            await _take_back(held, as_before, done)
        return Outcome(comparison, ended)


async def confirm(db: str, bridge: str) -> None:
    """Keep the change that is on trial.  Raises ConfigError when there is none."""
    path = _socket(db, bridge)
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        raise ConfigError(f"no change of bridge {bridge} waits to be confirmed") from None
    try:
        writer.write(_KEEP)
        answer = await reader.read()
    finally:
        writer.close()
    if answer != _KEPT:
        raise ConfigError(f"bridge {bridge}: too late, the change is being taken back")


def _socket(db: str, bridge: str) -> Path:
    return rundir_of(db) / f"ovsfw-{bridge}.confirm"


class _Answer:
    """The first answer counts: "" to keep the change, else why it is taken back."""

    def __init__(self) -> None:
        self._given: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def give(self, why: str) -> bool:
        """Whether this is the answer now."""
        if not self._given.done():
            self._given.set_result(why)
        return self._given.result() == why

    async def within(self, seconds: float) -> str:
        """The answer, or that there was none in time."""
        try:
            return await within(asyncio.shield(self._given), seconds)
        except asyncio.TimeoutError:
            self.give(f"not confirmed within {seconds:g} s")
            return self._given.result()

    async def asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connects, to confirm or to see whether we are there."""
        if await reader.readline() == _KEEP and self.give(""):
            writer.write(_KEPT)
        writer.close()

    def entered(self) -> None:
        """Enter on the terminal keeps; its end does not."""
        data = os.read(sys.stdin.fileno(), 1 << 12)
        self.give("" if data else "the terminal was closed")


@asynccontextmanager
async def _waiting(path: Path) -> AsyncIterator[_Answer]:
    """Listen for a confirmation, Enter on the terminal, and signals."""
    answer = _Answer()
    server = await _listen(path, answer)
    try:
        with _signals(answer), _terminal(answer):
            yield answer
    finally:
        server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@contextmanager
def _signals(answer: _Answer) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, answer.give, signal.Signals(number).name)
    try:
        yield
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)


@contextmanager
def _terminal(answer: _Answer) -> Iterator[None]:
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), answer.entered)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def _listen(path: Path, answer: _Answer) -> asyncio.AbstractServer:
    """Raises ConfigError when another process waits there already; the socket of one that was killed is replaced."""
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        pass
    else:
        writer.close()
        raise ConfigError(f"{path}: another change waits to be confirmed; confirm it first, or let it run out")
    before = os.umask(0o177)
    try:
        # A socket that nobody listens on is replaced (asyncio.start_unix_server).
        return await asyncio.start_unix_server(answer.asked, str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    finally:
        os.umask(before)


def _as_before(before: Comparison) -> Program:
    """What the bridge holds, as something that it could be told to hold."""
    old, settings = before.installed, before.installed.settings
    no_flood = Paged({ofport: ofport in settings.no_flood for ofport in before.program.no_flood})
    return Program(old.ours, no_flood, settings.fragment_ports, settings.connection_limits)


async def _take_back(held: Bridge, wanted: Program, done: Iterable[Due]) -> None:
    """Flows and settings as they were, and the connections that were touched, in the opposite way."""
    try:
        if not held.channel.is_open:
            await held.channel.connect(held.path)
        now = await read(held.channel)
        for one in done:
            await held.channel.remark(one.cut, blocked=False)
            await held.channel.remark(one.revive, blocked=True)
        await carry_out(held.channel, change_between(now.ours, now.settings, wanted))
    except SwitchError as error:
        raise SwitchError(f"the change could NOT be taken back; the bridge holds the new policy: {error}") from None


def _finish(db: str, bridge: str, told: Sequence[Program | Due]) -> None:
    """The guardian's work: `told` is what the bridge held, and then what was done to connections."""

    async def finish() -> None:
        async with opened(db, bridge) as held:
            for wanted in (thing for thing in told if isinstance(thing, Program)):
                await _take_back(held, wanted, [thing for thing in told if isinstance(thing, Due)])

    try:
        asyncio.run(finish())
        print("ovsfw: taken back: the command was killed; the bridge is as it was before", file=sys.stderr)  # noqa: T201
    except OvsfwError as error:
        print(f"ovsfw: the command was killed: {error}", file=sys.stderr)  # noqa: T201 - there is nobody else to tell
