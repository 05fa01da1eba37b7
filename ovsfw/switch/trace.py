"""What a bridge would do with a packet, by its own word: `ofproto/trace`, read (ovs-appctl(8), ofproto-unixctl(7)).

Nothing is sent and nothing is learned.  Where a packet passes conntrack the switch takes it to be the first of its
connection (`trk|new`) and goes on; each such pass is a stage of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovsfw.switch.unixctl import unixctl

# " 0. in_port=2, priority 1030, cookie 0xf5f010100000002", deeper where a resubmit comes back; "NN. No match."
_STEP = re.compile(r" *(\d+)\. (?:(?:(.*), )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?|(No match\.?.*))")
_BRIDGE = re.compile(r' *bridge\("(.*)"\)')
_RESUMED = re.compile(r"recirc\(0x[0-9a-f]+\) - resume conntrack.*ct_state=([a-z|]+)")
_OUTPUT = re.compile(r" *-> output port is (\S+)")
_REGISTER = re.compile(r"\breg(\d+)=(0x[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Step:
    """A flow that a packet met; `cookie` is None where no flow matched.  `state` is what conntrack had said by then."""

    bridge: str
    table: int
    match: str = ""
    priority: int = 0
    cookie: int | None = None
    state: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of one packet.

    `outputs` are the OpenFlow ports it comes out of by our word, `normal` says that the switch's own forwarding had it,
    `registers` are those at its end, `failed` is why the switch gave up, if it did.
    """

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    normal: bool
    registers: dict[int, int]
    failed: str
    text: str


async def trace(control: Path, bridge: str, flow: str, packet: str = "") -> Trace:
    """Ask a switch at its control socket; `flow` in ovs-ofctl's syntax, `packet` in hex where the bytes are known.

    Raises SwitchError when it is away or does not understand.
    """
    return read_trace(await unixctl(control, "ofproto/trace", bridge, flow, *([packet] if packet else [])), bridge)


def read_trace(text: str, bridge: str) -> Trace:
    """Read what ofproto/trace prints."""
    lines = text.splitlines()
    registers: dict[int, int] = {}
    for line in lines:
        # "unchanged" says that they are those of the stage's beginning.
        if line.startswith(("Flow: ", "Final flow: ")) and "unchanged" not in line:
            registers = {int(number): int(value, 16) for number, value in _REGISTER.findall(line)}
    failed = [line.strip() for line in lines if line.startswith("Translation failed")]
    return Trace(
        tuple(_steps(lines, bridge)),
        tuple(found[1] for line in lines if (found := _OUTPUT.fullmatch(line))),
        any(line.strip() == "NORMAL" for line in lines),
        registers,
        failed[0] if failed else "",
        text,
    )


def _steps(lines: list[str], bridge: str) -> Iterator[Step]:
    here, state = bridge, ""
    for line in lines:
        if found := _BRIDGE.fullmatch(line):
            here = found[1]
        elif found := _RESUMED.search(line):
            state = found[1]
        elif found := _STEP.fullmatch(line):
            number, match, priority, cookie, no_match = found.groups()
            if no_match:
                yield Step(here, int(number), state=state)
            else:
                yield Step(here, int(number), match or "", int(priority), int(cookie or "0", 16), state)
