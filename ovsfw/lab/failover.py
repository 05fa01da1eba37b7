"""The story of a cluster that loses its leader while the policy changes and packets flow; what was lost is counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ovsfw.lab.cluster import HOSTS, MACHINES, Cluster
from ovsfw.policy.writing import Document
from ovsfw.store.editing import Change, edit, read
from ovsfw.store.waiting import status, wait_for_hosts

_TIMEOUT = 60.0
Say = Callable[[str], None]


def policy() -> Document:
    """The client may ping the web; nobody may ping the vault."""
    icmp = {"direction": "ingress", "protocol": "icmp", "remote_group_id": "client"}
    ports = [
        {
            "id": machine.name,
            "mac_address": machine.mac,
            "fixed_ips": [{"ip_address": machine.address}],
            "security_groups": [machine.name],
        }
        for machine in MACHINES
    ]
    return {
        "security_groups": [
            {"id": "client", "rules": [{"direction": "egress"}]},
            {"id": "web", "rules": [{"id": "web-icmp", **icmp}]},
            {"id": "vault"},
        ],
        "ports": ports,
    }


def _with_vault(document: Document, *, is_open: bool) -> Document:
    """Let the client ping the vault, or not."""
    rule = {"id": "vault-icmp", "direction": "ingress", "protocol": "icmp", "remote_group_id": "client"}
    groups = [
        {**group, "rules": [rule] if is_open else []} if group["id"] == "vault" else group
        for group in document["security_groups"]
    ]
    return {**document, "security_groups": groups}


def _with_note(document: Document, number: int) -> Document:
    """One more address group: a change that must not get lost."""
    note = {"id": f"note-{number}", "addresses": ["192.0.2.1"]}
    return {**document, "address_groups": [*document.get("address_groups", ()), note]}


@dataclass(slots=True)
class Outcome:
    """What went wrong, and how much was tried."""

    changes: int = 0
    lost: list[str] = field(default_factory=list)
    wrong_packets: list[str] = field(default_factory=list)
    slowest: float = 0.0
    echoes: int = 0
    echoes_lost: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and no packet passed that must not."""
        return not (self.lost or self.wrong_packets or self.echoes_lost) and self.echoes > 0


def tell(cluster: Cluster, say: Say) -> Outcome:
    """Live through it, in a cluster that is up."""
    outcome = Outcome()
    _change(cluster, outcome, lambda _: policy())
    cluster.wait(lambda: _live_hosts(cluster) == len(HOSTS), "the hosts report")
    _change(cluster, outcome, lambda found: _with_note(found, 0))
    cluster.wait(lambda: cluster.ping("web"), "the first ping")
    say("two hosts have the policy in their flows; the client pings the web, and cannot ping the vault")
    with cluster.pinging("web") as file:
        _toggle(cluster, outcome, 1)
        leader = cluster.leader()
        if leader is None:
            raise AssertionError("a cluster that takes changes has a leader")
        cluster.kill(leader)
        say(f"the leader, {leader.address}, is killed; changes go on")
        _toggle(cluster, outcome, 2)
        say(f"the first change after that was in the flows of both hosts after {outcome.slowest:.1f} s at most")
        cluster.start_server(leader)
        _toggle(cluster, outcome, 3)
        say("the server is back, and changes go on")
    _count(cluster, outcome, file.read_text())
    for line in (*outcome.lost, *outcome.wrong_packets):
        say(line)
    say(
        f"{outcome.changes} changes, {len(outcome.lost)} lost; {outcome.echoes} echoes, {outcome.echoes_lost} lost; "
        f"{len(outcome.wrong_packets)} wrong packets"
    )
    return outcome


def _live_hosts(cluster: Cluster) -> int:
    found = asyncio.run(status(cluster.remote))
    return len(found.hosts) - len(found.dead)


def _toggle(cluster: Cluster, outcome: Outcome, number: int) -> None:
    """Open the vault, close it, note something; each time the packets must agree as soon as the hosts have said so."""
    for is_open in (True, False):
        _change(cluster, outcome, partial(_with_vault, is_open=is_open))
        if cluster.ping("vault") is not is_open:
            outcome.wrong_packets.append(f"the vault is {'open' if is_open else 'closed'} and an echo says it is not")
    _change(cluster, outcome, lambda found: _with_note(found, number))


def _change(cluster: Cluster, outcome: Outcome, change: Change) -> None:
    async def make() -> None:
        done = await edit(cluster.remote, change, awaited=True, timeout=_TIMEOUT)
        await wait_for_hosts(cluster.remote, done.generation, _TIMEOUT)

    began = time.monotonic()
    asyncio.run(make())
    outcome.changes += 1
    outcome.slowest = max(outcome.slowest, time.monotonic() - began)


def _count(cluster: Cluster, outcome: Outcome, said: str) -> None:
    """What is in the database at the end, and what ping has counted."""
    document = asyncio.run(read(cluster.remote)).document
    there = {group["id"] for group in document["address_groups"]}
    outcome.lost += [f"note-{number} is lost" for number in range(4) if f"note-{number}" not in there]
    counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    if counted is not None:
        outcome.echoes = int(counted[1])
        outcome.echoes_lost = int(counted[1]) - int(counted[2])
