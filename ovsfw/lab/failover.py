"""The story of a cluster that loses its leader, and of a host that loses the servers, while packets flow.

The policy changes all the time; what was lost is counted.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ovsfw.errors import StoreError
from ovsfw.lab.cluster import HOSTS, MACHINES, Cluster
from ovsfw.policy.writing import Document
from ovsfw.store.editing import Change, edit, read
from ovsfw.store.waiting import status, wait_for_hosts

_TIMEOUT = 60.0
_NOT_WAITED = 1.0  # seconds; a host that is cut off is late after any
# A server remembers no more changes than its database is large (ovsdb/transaction.c), and this one is small.
_BULK = 500
AWAY = "no connection to the policy database"
Say = Callable[[str], None]


def policy() -> Document:
    """Members of the group `friends` may ping the web, and the client is one; nobody may ping the vault."""
    icmp = {"direction": "ingress", "protocol": "icmp", "remote_group_id": "friends"}
    ports = [
        {
            "id": machine.name,
            "mac_address": machine.mac,
            "fixed_ips": [{"ip_address": machine.address}],
            "security_groups": ["client", "friends"] if machine.name == "client" else [machine.name],
        }
        for machine in MACHINES
    ]
    return {
        "security_groups": [
            {"id": "client", "rules": [{"id": "client-out", "direction": "egress"}]},
            {"id": "guest", "rules": [{"id": "guest-out", "direction": "egress"}]},
            {"id": "friends"},
            {"id": "web", "rules": [{"id": "web-icmp", **icmp}]},
            {"id": "vault"},
        ],
        "ports": ports,
        "address_groups": [{"id": f"bulk-{number}"} for number in range(_BULK)],
    }


def _with(document: Document, collection: str, name: str, **settings: object) -> Document:
    """With some keys of one object changed."""
    objects = [{**each, **settings} if each["id"] == name else each for each in document[collection]]
    return {**document, collection: objects}


def _with_vault(document: Document, *, is_open: bool) -> Document:
    """Let friends ping the vault, or not."""
    rule = {"id": "vault-icmp", "direction": "ingress", "protocol": "icmp", "remote_group_id": "friends"}
    return _with(document, "security_groups", "vault", rules=[rule] if is_open else [])


def _with_guest(document: Document, *, is_member: bool) -> Document:
    """Let the guest, on one host, be a member of the group that the web, on the other, lets in."""
    return _with(document, "ports", "guest", security_groups=["guest", "friends"] if is_member else ["guest"])


def _with_note(document: Document, name: str) -> Document:
    """One more address group: a change that must not get lost."""
    note = {"id": name, "addresses": ["192.0.2.1"]}
    return {**document, "address_groups": [*document.get("address_groups", ()), note]}


@dataclass(slots=True)
class Outcome:
    """What went wrong, and how much was tried."""

    changes: int = 0
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong_packets: list[str] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    slowest: float = 0.0
    echoes: int = 0
    echoes_lost: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, no packet passed that must not, and nothing said what was not so."""
        return not (self.lost or self.wrong_packets or self.lies or self.echoes_lost) and self.echoes > 0


class Story:
    """The cluster, which is up, and what has become of it so far."""

    def __init__(self, cluster: Cluster, say: Say) -> None:
        self.cluster, self.say, self.outcome = cluster, say, Outcome()

    def tell(self) -> Outcome:
        """Live through all of it."""
        self._begin()
        with self.cluster.pinging("web") as file:
            self.lose_the_leader()
            self.lose_the_servers("host1")
        self.hang_the_switch("host2")
        self._count(file.read_text())
        return self.outcome

    def _begin(self) -> None:
        self._change(lambda _: policy())
        self.cluster.wait(lambda: self._live_hosts() == len(HOSTS), "the hosts report")
        self._note("begin")
        self.cluster.wait(lambda: self.cluster.ping("web"), "the first ping")
        self.say("two hosts have the policy in their flows; through VXLAN the client pings the web, and not the vault")

    def lose_the_leader(self) -> None:
        """It is killed, and comes back."""
        self._toggle("before")
        leader = self.cluster.leader()
        if leader is None:
            raise AssertionError("a cluster that takes changes has a leader")
        self.cluster.kill(leader)
        self.say(f"the leader, {leader.address}, is killed; changes go on")
        self._toggle("without")
        self.say(
            f"the first change after that was in the flows of both hosts after {self.outcome.slowest:.1f} s at most"
        )
        self.cluster.start_server(leader)
        self._toggle("after")
        self.say("the server is back, and changes go on")

    def lose_the_servers(self, host: str) -> None:
        """The cable of a host is pulled while a change is made that it should know."""
        self._change(partial(_with_guest, is_member=True))
        heard = len(self.cluster.log(host))
        self.cluster.cut(host)
        began = time.monotonic()
        self.say(f"{host} is cut off from the servers; the guest there is to send nothing any more")
        change = partial(_with, collection="security_groups", name="guest", rules=[])
        generation = asyncio.run(edit(self.cluster.remote, change, timeout=_TIMEOUT)).generation
        self.outcome.changes += 1
        self._expect_late(host, generation)
        self.cluster.wait(lambda: AWAY in self.cluster.log(host)[heard:], f"{host} notices")
        self.say(f"it has noticed after {time.monotonic() - began:.0f} s; its traffic keeps the policy that it knows")
        self._expect("guest", "web", is_open=True)
        if not re.search(rf"problem for \d+ s: .*{AWAY}; generation \d+ stands", self.cluster.status(host)):
            self.outcome.lies.append(f"{host} is cut off, and its status does not say for how long")
        self.cluster.mend(host)
        began = time.monotonic()
        asyncio.run(wait_for_hosts(self.cluster.remote, generation, _TIMEOUT))
        self.say(f"the cable is back, and {time.monotonic() - began:.1f} s later the change is in its flows")
        self._expect("guest", "web", is_open=False)
        self._note("mended")

    def hang_the_switch(self, host: str) -> None:
        """Its daemon hears of a change, and cannot make it; it says so, and lives."""
        switch = self.cluster.switches[host].pid()
        os.kill(switch, signal.SIGSTOP)
        try:
            self.say(f"the switch of {host} hangs, and a change is made that it should have")
            change = partial(_with_vault, is_open=True)
            generation = asyncio.run(edit(self.cluster.remote, change, awaited=True, timeout=_TIMEOUT)).generation
            self.outcome.changes += 1
            self._expect_late(host, generation)
        finally:
            os.kill(switch, signal.SIGCONT)
        asyncio.run(wait_for_hosts(self.cluster.remote, generation, _TIMEOUT))
        self._expect("client", "vault", is_open=True)
        self._note("resumed")

    def _expect_late(self, host: str, generation: int) -> None:
        """Waiting for hosts must not say that a host has what it cannot have."""
        try:
            asyncio.run(wait_for_hosts(self.cluster.remote, generation, _NOT_WAITED))
        except StoreError as error:
            if f"host {host} has generation" in str(error):
                return
        self.outcome.lies.append(f"{host} is said to have generation {generation}, and cannot")

    def _live_hosts(self) -> int:
        found = asyncio.run(status(self.cluster.remote))
        return len(found.hosts) - len(found.dead)

    def _toggle(self, when: str) -> None:
        """Open and close; each time the packets must agree as soon as the hosts have said so."""
        for is_open in (True, False):
            self._change(partial(_with_vault, is_open=is_open))
            self._change(partial(_with_guest, is_member=is_open))
            self._expect("client", "vault", is_open=is_open)
            self._expect("guest", "web", is_open=is_open)
        self._note(when)

    def _expect(self, sender: str, receiver: str, *, is_open: bool) -> None:
        """An echo must say the same."""
        if self.cluster.ping(receiver, sender) is not is_open:
            said = "open" if is_open else "closed"
            self.outcome.wrong_packets.append(f"from {sender} to {receiver} is {said}, and an echo says it is not")

    def _note(self, name: str) -> None:
        self._change(partial(_with_note, name=name))
        self.outcome.notes.append(name)

    def _change(self, change: Change) -> None:
        async def make() -> None:
            done = await edit(self.cluster.remote, change, awaited=True, timeout=_TIMEOUT)
            await wait_for_hosts(self.cluster.remote, done.generation, _TIMEOUT)

        began = time.monotonic()
        asyncio.run(make())
        self.outcome.changes += 1
        self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - began)

    def _count(self, said: str) -> None:
        """What is in the database at the end, and what ping has counted."""
        outcome = self.outcome
        document = asyncio.run(read(self.cluster.remote)).document
        there = {group["id"] for group in document["address_groups"]}
        outcome.lost += [f"the change {note} is lost" for note in outcome.notes if note not in there]
        counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        if counted is not None:
            outcome.echoes = int(counted[1])
            outcome.echoes_lost = int(counted[1]) - int(counted[2])
        for line in (*outcome.lost, *outcome.wrong_packets, *outcome.lies):
            self.say(line)
        self.say(
            f"{outcome.changes} changes, {len(outcome.lost)} lost; "
            f"{outcome.echoes} echoes, {outcome.echoes_lost} lost; "
            f"{len(outcome.wrong_packets)} wrong packets; {len(outcome.lies)} wrong words of what a host had"
        )
