"""Probes on real packets: talks to the agents in the machines of a lab."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ovsfw.errors import SwitchError
from ovsfw.lab.admissions import Notes, parse_admissions
from ovsfw.lab.agent import LINE_LIMIT
from ovsfw.lab.relay import SWITCH
from ovsfw.lab.services import Probe, Service
from ovsfw.lab.topology import Lab
from ovsfw.policy.verdict import ICMP
from ovsfw.waiting import within


class Patience(NamedTuple):
    """How long an attempt waits for an answer, in seconds; how many attempts a probe has, and a machine at once."""

    timeout: float
    attempts: int
    at_once: int


# Most probes should get no answer, and wait: all at once.
USUAL = Patience(0.7, 2, 10_000)
# For those that should have been answered.  The machine may just be busy: fewer keep it less busy.
GREAT = Patience(1.5, 2, 16)
# What an agent may need beyond that: emulated, beside others on two cores, one needed more than five minutes for its
# part of a matrix.  That an agent is gone is known at once: its connection is refused or closed.
_OVERHEAD = 1800.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a probe.

    `how` is answered, refused, silent or an error's text.  `answered_by` is the machine that answered ("" for ICMP: the
    kernel answers).  `source_port` is the last attempt's, or its echo identifier.  `heard` says that the receiver got
    it, answered or not; known for UDP only.
    """

    how: str
    answered_by: str
    source_port: int
    heard: bool

    def passed(self, receiver: str) -> bool:
        """Whether a packet went there and another came back; a refusal is an answer too."""
        return self.how == "refused" or (self.how == "answered" and self.answered_by in ("", receiver))


async def listen(lab: Lab, services: Iterable[Service]) -> None:
    """Let every machine serve more services.  Raises SwitchError when an agent does not answer."""
    wanted = [[service.name, service.port] for service in services if service.protocol != ICMP]
    machines = [machine.name for machine in lab.plan.machines]
    await asyncio.gather(*(_ask(lab, machine, {"do": "listen", "services": wanted}) for machine in machines))


async def send(lab: Lab, probes: Sequence[Probe], patience: Patience = USUAL) -> list[Answer]:
    """Send probes; the answers are in their order.  Raises SwitchError when an agent does not answer."""
    machines = [machine.name for machine in lab.plan.machines]
    await _heard(lab, machines)
    by_sender: dict[str, list[int]] = {}
    for number, probe in enumerate(probes):
        by_sender.setdefault(probe.sender.machine, []).append(number)
    round_id = secrets.token_hex(4)
    orders = [_order(f"{round_id}-{number}", probe) for number, probe in enumerate(probes)]
    jobs = (
        _send_from(lab, machine, [(n, orders[n]) for n in numbers], patience) for machine, numbers in by_sender.items()
    )
    results = {number: result for answers in await asyncio.gather(*jobs) for number, result in answers.items()}
    heard = await _heard(lab, machines)
    return [
        Answer(result["how"], result["answer"], result["source_port"], order[0] in heard[probe.receiver.machine])
        for order, probe, result in zip(orders, probes, map(results.__getitem__, range(len(probes))), strict=True)
    ]


def _order(token: str, probe: Probe) -> list[Any]:
    """A probe as the agent wants it."""
    return [token, probe.service.name, str(probe.source), str(probe.destination), probe.service.port]


async def noted(lab: Lab) -> list[Notes]:
    """What conntrack knows, on every host of a lab.  Raises SwitchError."""
    everywhere, here = (frozenset(machine.name for machine in plan.machines) for plan in (lab.plan, lab.here))
    notes = [Notes(here, parse_admissions(lab.ovs.appctl("dpctl/dump-conntrack")))]
    if lab.share:
        notes.append(Notes(everywhere - here, parse_admissions(await _ask(lab, SWITCH, {}))))
    return notes


async def _send_from(lab: Lab, machine: str, orders: list[tuple[int, list[Any]]], patience: Patience) -> dict[int, Any]:
    """Let one machine send its probes."""
    request = {"do": "probe", "probes": [order for _, order in orders], **patience._asdict()}
    rounds = math.ceil(len(orders) / patience.at_once)
    results = await _ask(lab, machine, request, _OVERHEAD + rounds * patience.attempts * patience.timeout * 2)
    return {number: result for (number, _), result in zip(orders, results, strict=True)}


async def _heard(lab: Lab, machines: Sequence[str]) -> dict[str, set[str]]:
    answers = await asyncio.gather(*(_ask(lab, machine, {"do": "heard"}) for machine in machines))
    return {machine: set(tokens) for machine, tokens in zip(machines, answers, strict=True)}


async def _ask(lab: Lab, machine: str, request: dict[str, Any], patience: float = _OVERHEAD) -> Any:  # noqa: ANN401 - JSON
    try:
        line = await within(_exchange(lab, machine, request), patience)
        answer = json.loads(line)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        remedy = "take the lab down and up again, on every host of it"
        raise SwitchError(f"the agent in {machine} does not answer ({type(error).__name__}): {remedy}") from None
    if "error" in answer:
        raise SwitchError(f"the agent in {machine}: {answer['error']}")
    return answer["result"]


async def _exchange(lab: Lab, machine: str, request: dict[str, Any]) -> bytes:
    where = lab.agent(machine)
    if isinstance(where, Path):
        reader, writer = await asyncio.open_unix_connection(where, limit=LINE_LIMIT)
    else:
        reader, writer = await asyncio.open_connection(*where, limit=LINE_LIMIT)
        writer.write(f"{machine}\n".encode())
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        return await reader.readline()
    finally:
        writer.close()
