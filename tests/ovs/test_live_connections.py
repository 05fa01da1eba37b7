"""Live connections follow the policy: real sockets, real packets, a real switch.

vm1 and vm3 are clients of vm2.  What changes concerns vm1 alone; vm3's connections must not lose anything.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeAlias, TypeVar

import pytest

from ovsfw.compiler import Binding, Bindings
from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.tracked import Tracked
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.reconciler import Reconciler
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import management_socket
from tests.ovs.streams import Stream, datagrams, download, echoes, upload

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
Json: TypeAlias = dict[str, Any]
T = TypeVar("T")
SERVER, CUT_WITHIN = "10.0.0.2", 1.0
BINDINGS = Bindings(tuple(Binding(f"vm{n}", n) for n in (1, 2, 3)))
_PORTS = itertools.count(1000, 4)


def space(n: int) -> str:
    return f"live{os.getpid()}-{n}"


@pytest.fixture(scope="module")
def switch(ovs: PrivateSwitch) -> Iterator[PrivateSwitch]:
    ovs.add_bridge("br-int")
    try:
        for n in (1, 2, 3):
            peer = f"peer name eth0 address 52:54:00:00:00:0{n} netns {space(n)}"
            veth = f"link add name vm{n} netns {ovs.netns} up type veth {peer}"
            netns.batch([f"netns add {space(n)}", veth])
            netns.inside(space(n), "sh", "-c", f"ip a add 10.0.0.{n}/24 dev eth0; ip link set eth0 up; "
                         "ethtool -K eth0 tx off >/dev/null")  # fmt: skip
            ovs.vsctl("add-port", "br-int", f"vm{n}", "--", "set", "interface", f"vm{n}", f"ofport_request={n}")
        yield ovs
    finally:
        netns.remove([space(n) for n in (1, 2, 3)])


# --- Policies -------------------------------------------------------------------------------------------------------


def port(n: int, *groups: str, ip: str = "") -> Json:
    address = {"ip_address": ip or f"10.0.0.{n}"}
    return {"id": f"vm{n}", "mac_address": f"52:54:00:00:00:0{n}", "fixed_ips": [address], "security_groups": groups}


def policy(*ports: Json, **groups: list[Json]) -> Policy:
    described = [{"id": name, "rules": rules} for name, rules in groups.items()]
    return parse(json.dumps({"security_groups": described, "ports": ports}), "live.json")


def allow(direction: str, **more: Any) -> Json:
    return {"direction": direction, "ethertype": "IPv4", **more}


OUT = [allow("egress")]
BY_GROUP = [allow("ingress", remote_group_id="clients")]
BY_PREFIX = [allow("ingress", remote_ip_prefix=f"10.0.0.{n}/32") for n in (1, 3)]


def by_group(vm1: Json, **more: list[Json]) -> Policy:
    groups = {"talker": OUT, "clients": [], "server": BY_GROUP, **more}
    return policy(vm1, port(2, "server"), port(3, "talker", "clients"), **groups)


def by_prefix(rules: list[Json]) -> Policy:
    return policy(port(1, "talker"), port(2, "server"), port(3, "talker"), talker=OUT, server=rules)


BEFORE = by_group(port(1, "talker", "clients"))
CHANGES = {
    "a member leaves the group that the server accepts": (BEFORE, by_group(port(1, "talker"))),
    "the client loses the group that lets it out": (BEFORE, by_group(port(1, "clients"))),
    "the client's address changes": (BEFORE, by_group(port(1, "talker", "clients", ip="10.0.0.9"))),
    "a rule of the server goes": (by_prefix(BY_PREFIX), by_prefix(BY_PREFIX[1:])),
}
SPARED = {
    "another group has such a rule": (
        by_group(port(1, "talker", "also", "clients"), also=OUT),
        by_group(port(1, "also", "clients"), also=OUT),
    ),
    "another rule of the group accepts it": (
        by_prefix([*BY_PREFIX, allow("ingress", remote_ip_prefix="10.0.0.0/30")]),
        by_prefix([allow("ingress", remote_ip_prefix="10.0.0.0/30"), BY_PREFIX[1]]),
    ),
}


# --- The switch -----------------------------------------------------------------------------------------------------


class Host:
    """A reconciler at work; it begins with conntrack empty."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self._loop = asyncio.new_event_loop()
        self.channel = Channel()
        self.run(self.channel.connect(management_socket("br-int", switch.rundir)))
        self.reconciler = Reconciler(self.channel)
        switch.appctl("dpctl/flush-conntrack")

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self._loop.run_until_complete(wait())

    def change(self, wanted: Policy, bindings: Bindings = BINDINGS) -> float:
        """Make it so; when the change was committed."""
        self.run(self.reconciler.step(wanted, bindings))
        committed = time.monotonic()
        self.run(self.reconciler.settling.finish())
        return committed

    def connections(self) -> list[Tracked]:
        return self.run(self.channel.connections([4096]))

    def close(self) -> None:
        self.channel.close()
        self.run(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture
def host(switch: PrivateSwitch) -> Iterator[Host]:
    with closing(Host(switch)) as made:
        yield made


@contextmanager
def talking(client: int) -> Iterator[list[Stream]]:
    """Every kind of conversation of a client with vm2, at once."""
    ports = iter(range(first := next(_PORTS), first + 4))
    here, there = space(client), space(2)
    makers: list[Callable[[], Stream]] = [
        lambda: upload(here, there, (SERVER, next(ports))),
        lambda: download(here, there, (SERVER, next(ports))),
        lambda: datagrams(here, there, (SERVER, next(ports)), down=False),
        lambda: datagrams(here, there, (SERVER, next(ports)), down=True),
        lambda: echoes(here, SERVER),
    ]
    with ExitStack() as stack:
        yield [stack.enter_context(closing(make())) for make in makers]


def lost(stream: Stream) -> int:
    """How many of its packets never came, of those before the last that did."""
    numbers = set(stream.numbers)
    return max(numbers) - min(numbers) + 1 - len(numbers)


def silent(streams: list[Stream]) -> list[str]:
    return [stream.name for stream in streams if not stream.goes_on()]


# --- The tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_longer_allowed_is_cut_and_lives_again(host: Host, change: str) -> None:
    before, after = CHANGES[change]
    host.change(before)
    with talking(1) as doomed, talking(3) as spared:
        assert silent([*doomed, *spared]) == []
        committed = host.change(after)
        late = {stream.name: round(stream.arrived[-1] - committed, 2) for stream in doomed}
        assert {name: seconds for name, seconds in late.items() if seconds > CUT_WITHIN} == {}
        assert silent(spared) == []
        assert [stream.name for stream in doomed if stream.goes_on(0.3)] == []
        host.change(before)
        assert silent(doomed) == []
        assert {stream.name: lost(stream) for stream in spared if stream.name in ("udp up", "udp down", "icmp")} == {
            "udp up": 0, "udp down": 0, "icmp": 0,
        }  # fmt: skip


@pytest.mark.parametrize("change", SPARED)
def test_what_another_rule_allows_loses_nothing(host: Host, change: str) -> None:
    before, after = SPARED[change]
    host.change(before)
    with talking(1) as streams:
        assert silent(streams) == []
        for wanted in (after, before):
            host.change(wanted)
            assert silent(streams) == []
    assert {stream.name: lost(stream) for stream in streams[2:]} == {"udp up": 0, "udp down": 0, "icmp": 0}
