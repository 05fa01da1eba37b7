"""Tries to get round the filter of a running lab, with frames put straight onto the machines' devices.

Every frame ends with a mark of its own, where no protocol looks, so that it is known again wherever it comes out, also
on the kernel's datapath (see `frames.marked`).  The switch takes the packets of one port in their order, but those of
several ports in any.  So when all have been sent, and wherever the order matters, every sender repeats a frame that
must reach everybody: when that has arrived, all before it have arrived or were dropped.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ovsfw.errors import ConfigError, SwitchError
from ovsfw.lab.attempts import Attempt, attempts
from ovsfw.lab.frames import marked
from ovsfw.lab.helped import NUMBERS, talks
from ovsfw.lab.machines import namespace
from ovsfw.lab.netns import NAMES
from ovsfw.lab.scenes import scenes
from ovsfw.lab.topology import Lab
from ovsfw.policy.model import Policy

PATIENCE, HASTE = 3.0, 0.5  # seconds for what must arrive, and where something has been lost already
_MARK_BYTES = 16
_NUMBERS_A_SECOND = 10  # more than a run needs
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL (if_ether.h)
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET (sched.h)
_LONGEST = 1 << 16
DEVICE = "eth0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An attempt, and the machines at which it arrived."""

    scene: str
    attempt: Attempt
    arrived: frozenset[str]

    @property
    def is_right(self) -> bool:
        """Whether a good frame arrived everywhere, and a bad one nowhere."""
        wanted = set(self.attempt.machines)
        return wanted <= self.arrived if self.attempt.good else not wanted & self.arrived

    @property
    def words(self) -> str:
        """`passed`, `stopped`, `LOST` or `GOT THROUGH`, and where if that is news; `sent` where nothing is expected."""
        attempt = self.attempt
        if not attempt.machines:
            return "sent"
        if self.is_right:
            return "passed" if attempt.good else "stopped"
        where = set(attempt.machines) - self.arrived if attempt.good else set(attempt.machines) & self.arrived
        return f"{'LOST on the way' if attempt.good else 'GOT THROUGH'} to {', '.join(sorted(where))}"


def selftest(lab: Lab, policy: Policy) -> tuple[Outcome, ...]:
    """Try everything.

    Raises ConfigError when there is nothing to try, SwitchError when a machine cannot be entered or its device is down.
    """
    staged = [(title, attempt, secrets.token_bytes(_MARK_BYTES)) for title, attempt in _all(lab, policy)]
    if not staged:
        raise ConfigError("nothing to try: no machine of the lab has port security, an address and a neighbour")
    with ExitStack() as stack:
        wires = {machine.name: stack.enter_context(Wire.at(lab, machine.name)) for machine in lab.here.machines}
        post = _Post(wires, [attempt for _, attempt, _ in staged])
        for _, attempt, mark in staged:
            if attempt.in_turn:
                post.settle()
            post.send(attempt, mark)
            if attempt.in_turn:
                post.settle()
        post.settle()
        post.wait(
            [(wires[name], attempt, mark) for _, attempt, mark in staged if attempt.good for name in attempt.machines]
        )
        return tuple(
            Outcome(title, attempt, frozenset(name for name, wire in wires.items() if wire.has(attempt, mark)))
            for title, attempt, mark in staged
        )


def _all(lab: Lab, policy: Policy) -> Iterator[tuple[str, Attempt]]:
    """What is tried, each with the title of its scene."""
    for scene in scenes(policy, lab.here):
        yield from ((scene.title, attempt) for attempt in attempts(scene))
    for talk in talks(policy, lab.here, int(time.time() * _NUMBERS_A_SECOND) % NUMBERS):
        yield from ((talk.title, attempt) for attempt in talk.attempts())


class _Post:
    """Sends frames, and knows when the switch has dealt with them."""

    def __init__(self, wires: dict[str, Wire], all_attempts: Sequence[Attempt]) -> None:
        self._wires = wires
        self._fences = {attempt.sender: attempt for attempt in reversed(all_attempts) if attempt.good}
        self._busy: set[str] = set()
        self._patience = PATIENCE

    def send(self, attempt: Attempt, mark: bytes) -> None:
        """Put its frame on the wire.  Raises SwitchError."""
        self._wires[attempt.sender].send(_sent(attempt, mark))
        self._busy.add(attempt.sender)

    def settle(self) -> None:
        """Wait until all that was sent has been dealt with, as far as good frames of its senders arrive at all."""
        waiting = {}
        for name in sorted(self._busy & self._fences.keys()):
            fence, mark = self._fences[name], secrets.token_bytes(_MARK_BYTES)
            self._wires[name].send(_sent(fence, mark))
            waiting[name] = [(self._wires[machine], fence, mark) for machine in fence.machines]
        self._busy.clear()
        self.wait([each for places in waiting.values() for each in places])
        for name, places in waiting.items():
            if not all(wire.has(attempt, mark) for wire, attempt, mark in places):
                del self._fences[name]

    def wait(self, places: list[tuple[Wire, Attempt, bytes]]) -> None:
        """Until all has arrived, or for so long that it never will; after one loss, others are soon given up."""
        deadline = time.monotonic() + self._patience
        while any(not wire.has(attempt, mark) for wire, attempt, mark in places):
            if time.monotonic() >= deadline:
                self._patience = HASTE
                return
            time.sleep(0.005)


class Wire:
    """The device of a machine, for whole frames."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self._name = name
        self._sock = sock
        self._marks: set[bytes] = set()
        self._frames: set[bytes] = set()

    @classmethod
    @contextmanager
    def at(cls, lab: Lab, machine: str) -> Iterator[Wire]:
        """Open it for a while.  Raises SwitchError."""
        try:
            with _inside(NAMES / namespace(lab.place, machine)):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
                sock.bind((DEVICE, _ALL_PROTOCOLS))
        except OSError as error:
            remedy = "run this as root" if isinstance(error, PermissionError) else "take the lab down and up again"
            raise SwitchError(f"machine {machine}: {error.strerror}; {remedy}") from None
        with sock:
            sock.setblocking(False)
            yield cls(machine, sock)

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire.  Raises SwitchError."""
        try:
            self._sock.send(frame)
        except OSError as error:
            raise SwitchError(f"machine {self._name} cannot send: {error.strerror}") from None

    def has(self, attempt: Attempt, mark: bytes) -> bool:
        """Whether its frame has come in, with this mark, or, where one may have been cut off, without any."""
        with suppress(BlockingIOError):
            while True:
                data, sender = self._sock.recvfrom(_LONGEST)
                if sender[2] != socket.PACKET_OUTGOING:
                    self._marks.add(data[-_MARK_BYTES:])
                    self._frames.add(data)
        return mark in self._marks or (attempt.in_turn and attempt.frame in self._frames)


def _sent(attempt: Attempt, mark: bytes) -> bytes:
    """What is put on the wire.  What is said in turn may be a part of a conversation, and keeps its length."""
    return attempt.frame + mark if attempt.in_turn else marked(attempt.frame, mark)


@contextmanager
def _inside(path: Path) -> Iterator[None]:
    """What is opened meanwhile belongs to another network namespace.  Raises OSError."""
    with path.open("rb") as there, Path("/proc/thread-self/ns/net").open("rb") as here:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(here.fileno())


def _enter(namespace_fd: int) -> None:
    """setns(2), which Python has only since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_fd, _NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def as_text(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Everything that was tried, by scene, and a summary."""
    scene = ""
    for outcome in outcomes:
        if outcome.scene != scene:
            scene = outcome.scene
            yield f"{scene}:"
        kind = ("good" if outcome.attempt.good else "bad") if outcome.attempt.machines else ""
        yield f"  {kind:4}  {outcome.attempt.what:58}  {outcome.words}"
    yield summary(outcomes)


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line."""
    good = [outcome.is_right for outcome in outcomes if outcome.attempt.good and outcome.attempt.machines]
    bad = [outcome.is_right for outcome in outcomes if not outcome.attempt.good]
    text = f"selftest: {sum(bad)} of {len(bad)} bad frames were stopped, {sum(good)} of {len(good)} good ones passed"
    if not any(good):
        text += "; nothing passes at all: has the policy been applied (ovsfw apply)?"
    return text


def as_json(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The same for programs."""
    return {
        "attempts": [
            {
                "scene": outcome.scene,
                "attempt": outcome.attempt.what,
                "sender": outcome.attempt.sender,
                "good": outcome.attempt.good,
                "arrived": sorted(outcome.arrived),
                "right": outcome.is_right,
            }
            for outcome in outcomes
        ],
        "wrong": sum(not outcome.is_right for outcome in outcomes),
    }
