"""Tells the senders of rejected packets: the daemon's part of `reject`.

What is said is `openflow.reject`'s; here it is heard of a rejected packet, and the answer goes out.  The answer leaves
by the port by which the packet came and by no other, so a sender can do no more with a forged address than to talk to
itself, or to those behind its own port.  All of it goes over connections of its own: a flood takes nothing from the one
over which flows are changed.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from ovsfw.compiler.pipeline import Reason, read_cookie
from ovsfw.compiler.recording import ANSWER_BURST, ANSWER_METER, ANSWER_RATE, ANSWERER, COPIED_BYTES
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.openflow.reject import answer
from ovsfw.policy.model import Policy
from ovsfw.policy.tiers import rejects
from ovsfw.switch import packet_in
from ovsfw.switch.connection import Connection
from ovsfw.switch.meters import Meters

_NO_METERS = (
    "the policy rejects, but nobody tells the senders: {error}, without which a flood could not be held back; what is "
    "rejected is dropped all the same"
)


class Answering:
    """Its state: whether there is anything to answer."""

    def __init__(self, path: Path) -> None:
        """`path` is the management socket of the bridge."""
        self._path = path
        self._meters = Meters(path, (ANSWER_METER,), ANSWER_RATE, ANSWER_BURST, _NO_METERS)
        self._begin = asyncio.Event()

    async def prepare(self, policy: Policy, *, anew: bool) -> bool:
        """Whether flows may send copies of what they reject; a policy that rejects nothing needs no meter.

        `anew`: the switch may have lost what it had.  Raises SwitchError when it is away.
        """
        if not rejects(policy) or not await self._meters.are_there(anew=anew):
            return False
        self._begin.set()
        return True

    async def run(self) -> None:
        """Answer, once there is anything to answer.  Raises SwitchError when the bridge is away."""
        await self._begin.wait()
        with closing(await Connection.open(self._path)) as out:
            async for copy in packet_in.packets(self._path, ANSWERER, COPIED_BYTES):
                frame = answer_to(copy)
                if frame is not None:
                    await packet_in.send(out, frame, copy.in_port)


def answer_to(copy: PacketIn) -> bytes | None:
    """What the sender of a packet is told, None for nothing.

    Whoever is behind a tunnel is told nothing: an answer would need the tunnel's far end, too.
    """
    why = read_cookie(copy.cookie)
    if why is None or why[0] is not Reason.REJECTED or not copy.in_port or copy.from_tunnel:
        return None
    return answer(copy.packet)
