"""Live connections follow the policy: real sockets, real packets, a real switch.

vm1 and vm3 are clients of vm2.  What changes concerns vm1 alone; vm3's connections must not lose anything.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from ovsfw.compiler import Binding, Bindings
from ovsfw.compiler.bindings import Uplink
from ovsfw.lab import netns
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.tracked import Tracked
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy
from ovsfw.reconciler import Reconciler
from ovsfw.switch.channel import Channel
from ovsfw.switch.rundir import management_socket
from tests.ovs.streams import Stream, datagrams, download, echoes, upload
from tests.running import PATIENCE, running

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
Json: TypeAlias = dict[str, Any]
T = TypeVar("T")
SERVER, CUT_WITHIN = "10.0.0.2", 1.0
LOCAL = 0xFFFFFFFE
BINDINGS = Bindings(tuple(Binding(f"vm{n}", n) for n in (1, 2, 3)), (Uplink(LOCAL),))
_PORTS = itertools.count(1000, 4)


def space(n: int) -> str:
    return f"live{os.getpid()}-{n}"


@pytest.fixture(scope="module")
def switch(ovs: PrivateSwitch) -> Iterator[PrivateSwitch]:
    ovs.add_bridge("br-int")
    try:
        for n in (1, 2, 3):
            peer = f"peer name eth0 address 52:54:00:00:00:0{n} netns {space(n)}"
            veth = f"link add name vm{n} up type veth {peer}"
            netns.batch([f"netns add {space(n)}"])
            netns.batch([veth], ovs.netns)
            netns.inside(space(n), "sh", "-c", f"ip a add 10.0.0.{n}/24 dev eth0; ip link set eth0 up; "
                         "ethtool -K eth0 tx off >/dev/null")  # fmt: skip
            ovs.vsctl(
                *("add-port", "br-int", f"vm{n}", "--", "set", "interface", f"vm{n}"),
                *(f"ofport_request={n}", f"external_ids:iface-id=vm{n}"),
            )
        yield ovs
    finally:
        netns.remove([space(n) for n in (1, 2, 3)])


# --- Policies -------------------------------------------------------------------------------------------------------


def port(n: int, *groups: str, ip: str = "") -> Json:
    addresses = [{"ip_address": address} for address in (ip or f"10.0.0.{n}").split()]
    return {"id": f"vm{n}", "mac_address": f"52:54:00:00:00:0{n}", "fixed_ips": addresses, "security_groups": groups}


def document(*ports: Json, denied: str = "", **groups: Any) -> str:
    """`denied` is an address from which a tier lets nothing in."""
    described = [{"id": name, "rules": rules} for name, rules in groups.items()]
    deny = allow("ingress", action="deny", remote_ip_prefix=denied)
    tiers = [{"id": "operator", "position": "before", "rules": [deny]}] if denied else []
    return json.dumps({"security_groups": described, "ports": ports, "tiers": tiers})


def policy(*ports: Json, denied: str = "", **groups: Any) -> Policy:
    return parse(document(*ports, denied=denied, **groups), "live.json")


def allow(direction: str, **more: Any) -> Json:
    return {"direction": direction, "ethertype": "IPv4", **more}


OUT = [allow("egress")]
BY_GROUP = [allow("ingress", remote_group_id="clients")]
BY_PREFIX = [allow("ingress", remote_ip_prefix=f"10.0.0.{n}/32") for n in (1, 3)]


def by_group(vm1: Json, **more: Any) -> Policy:
    groups = {"talker": OUT, "clients": [], "server": BY_GROUP, **more}
    return policy(vm1, port(2, "server"), port(3, "talker", "clients"), **groups)


def by_prefix(rules: list[Json], denied: str = "") -> Policy:
    ports = port(1, "talker"), port(2, "server"), port(3, "talker")
    return policy(*ports, denied=denied, talker=OUT, server=rules)


BEFORE = by_group(port(1, "talker", "clients"))
CHANGES = {
    "a member leaves the group that the server accepts": (BEFORE, by_group(port(1, "talker"))),
    "the client loses the group that lets it out": (BEFORE, by_group(port(1, "clients"))),
    "the client's address changes": (BEFORE, by_group(port(1, "talker", "clients", ip="10.0.0.9"))),
    "a rule of the server goes": (by_prefix(BY_PREFIX), by_prefix(BY_PREFIX[1:])),
    "a tier denies it": (by_prefix(BY_PREFIX), by_prefix(BY_PREFIX, denied="10.0.0.1/32")),
}
SPARED = {
    "a member leaves, and a prefix accepts it": (
        by_group(port(1, "talker", "clients"), server=BY_GROUP + BY_PREFIX),
        by_group(port(1, "talker"), server=BY_GROUP + BY_PREFIX),
    ),
    "another of its addresses goes": (
        by_group(port(1, "talker", "clients", ip="10.0.0.1 10.0.0.9")),
        by_group(port(1, "talker", "clients")),
    ),
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


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
def test_another_endpoint_with_the_same_number_inherits_nothing(host: Host, *, pause: bool) -> None:
    """vm2 is unplugged, and another port has its address and gets its OpenFlow number: it accepts nothing."""
    heir = port(2) | {"id": "heir"}
    groups: dict[str, Any] = {"talker": OUT, "server": BY_PREFIX}
    before = policy(port(1, "talker"), port(2, "server"), **groups)
    after = policy(port(1, "talker"), heir, **groups)
    inherited = replace(BINDINGS, endpoints=(Binding("vm1", 1), Binding("heir", 2)))
    host.change(before)
    with talking(1) as streams:
        assert silent(streams) == []
        if pause:
            host.change(after, replace(BINDINGS, endpoints=BINDINGS.endpoints[:1]))
        host.change(after, inherited)
        assert [stream.name for stream in streams if stream.goes_on(0.3)] == []
        host.change(before)
        assert silent(streams) == []


# --- The daemon -----------------------------------------------------------------------------------------------------


def test_a_running_daemon_cuts_a_connection_and_lets_it_live_again(
    switch: PrivateSwitch, files: tuple[str, str], tmp_path: Path
) -> None:
    """The policy file loses a rule, and gets it back."""
    wanted = tmp_path / "wanted.json"

    def say(file: str) -> None:
        new = wanted.with_suffix(".new")
        new.write_text(Path(file).read_text())
        new.rename(wanted)

    now, later = files
    say(now)
    with running(switch, wanted) as daemon:
        daemon.in_sync()
        with downloading(1) as stream:
            say(later)
            [cut] = daemon.logged(r"[1-9]\d* cut")
            assert not stream.goes_on(0.5), cut
            say(now)
            assert stream.goes_on(), daemon.log


# --- The commands ---------------------------------------------------------------------------------------------------

RULES: dict[str, Any] = {"talker": OUT, "server": [allow("ingress", id="to-server", protocol="tcp")]}
LATER: dict[str, Any] = {"talker": OUT, "server": []}


@pytest.fixture
def files(tmp_path: Path, host: Host) -> tuple[str, str]:
    """A policy that is enforced, and one that takes TCP to vm2 away."""
    found = []
    for name, groups in (("now", RULES), ("later", LATER)):
        path = tmp_path / f"{name}.json"
        path.write_text(document(port(1, "talker"), port(2, "server"), port(3, "talker"), **groups))
        found.append(str(path))
    host.change(parse(Path(found[0]).read_text(), "now"))
    return found[0], found[1]


def command(switch: PrivateSwitch, *words: str) -> list[str]:
    return [sys.executable, "-m", "ovsfw", *words, "--db", switch.db]


def ovsfw(switch: PrivateSwitch, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(switch, *words), capture_output=True, text=True, check=False, timeout=PATIENCE)


@contextmanager
def downloading(client: int = 1) -> Iterator[Stream]:
    with closing(download(space(client), space(2), (SERVER, next(_PORTS)))) as stream:
        assert stream.goes_on()
        yield stream


def test_connections_are_told_with_names_and_rules(switch: PrivateSwitch, files: tuple[str, str]) -> None:
    now, later = files
    with downloading(1), downloading(3):
        told = ovsfw(switch, "connections", "--policy", now)
        assert told.returncode == 0, told.stderr
        first = next(line for line in told.stdout.splitlines() if "vm1 -> vm2" in line)
        assert "-> 10.0.0.2:" in first
        assert "ESTABLISHED  allowed  by talker: anything to anywhere; by server: tcp from anywhere  forgotten" in first
        assert told.stdout.splitlines()[-1] == "br-int: 2 of 2 connections, 0 blocked"
        [only] = json.loads(ovsfw(switch, "connections", "vm3", "--policy", now, "--format", "json").stdout)[
            "connections"
        ]
        assert (only["sender"], only["receiver"], only["state"], only["fate"]) == ("vm3", "vm2", "ESTABLISHED", "live")
        assert only["admitted_by"][1] == "to-server"
        for words, amount in (
            (["--blocked"], 0), (["--rule", "to-server", "--state", "established"], 2),
            (["--port", str(only["destination_port"])], 1),
        ):  # fmt: skip
            told = ovsfw(switch, "connections", "--policy", now, *words)
            assert told.stdout.splitlines()[-1].startswith(f"br-int: {amount} of 2 connections"), words
        assert "denied, and not blocked" in ovsfw(switch, "connections", "--policy", later).stdout
    for words, error in ((["vm9"], "not in the policy"), (["--rule", "none"], "no such rule")):
        told = ovsfw(switch, "connections", "--policy", now, *words)
        assert told.returncode == 1
        assert error in told.stderr


def test_watching_goes_on_until_interrupted(switch: PrivateSwitch, files: tuple[str, str]) -> None:
    words = command(switch, "connections", "--policy", files[0], "--watch", "0.1", "--format", "json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        for _ in range(3):
            assert json.loads(watching.stdout.readline()) == {"connections": [], "foreign": 0}
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE) == 130


def test_diff_tells_what_would_be_cut_and_touches_nothing(switch: PrivateSwitch, files: tuple[str, str]) -> None:
    with downloading() as stream:
        told = ovsfw(switch, "diff", "--policy", files[1])
        assert told.returncode == 2, told.stderr
        [cut] = [line for line in told.stdout.splitlines() if line.startswith("cut: ")]
        assert cut.endswith("vm1 -> vm2")
        assert "-> 10.0.0.2:" in cut
        found = json.loads(ovsfw(switch, "diff", "--policy", files[1], "--format", "json").stdout)
        assert {kind: len(entries) for kind, entries in found["connections"].items()} == {
            "cut": 1, "revive": 0, "judge_anew": 0, "take_over": 0, "open": 0,
        }  # fmt: skip
        assert stream.goes_on()
        assert ovsfw(switch, "diff", "--policy", files[0]).returncode == 0


# Seconds; the commands of a test may take long on a busy machine.
LONG = "600"


def on_trial(switch: PrivateSwitch, file: str, seconds: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    words = command(switch, "apply", "--policy", file, "--confirm", seconds)
    return subprocess.Popen(
        words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_trial(trial: subprocess.Popen[str]) -> None:
    assert trial.stderr is not None
    for line in trial.stderr:
        if "taken back in" in line:
            return
    pytest.fail("it never waited")


@pytest.mark.parametrize("end", ["time", "SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "terminal"])
def test_a_change_that_nobody_confirms_is_taken_back(switch: PrivateSwitch, files: tuple[str, str], end: str) -> None:
    parent, child = pty.openpty()
    with downloading() as stream, on_trial(switch, files[1], "0.5" if end == "time" else LONG, child) as trial:
        os.close(child)
        wait_for_trial(trial)
        if end == "terminal":
            os.write(parent, b"\x04")
        elif end != "time":
            trial.send_signal(getattr(signal, end))
        assert trial.wait(PATIENCE) == (-signal.SIGKILL if end == "SIGKILL" else 1)
        assert trial.stderr is not None
        assert "taken back: " in trial.stderr.read()
        assert ovsfw(switch, "verify", "--policy", files[0]).returncode == 0
        assert stream.goes_on()
    os.close(parent)


@pytest.mark.parametrize("way", ["command", "Enter"])
def test_a_change_that_is_confirmed_stays(switch: PrivateSwitch, files: tuple[str, str], way: str) -> None:
    parent, child = pty.openpty()
    with downloading() as stream, on_trial(switch, files[1], LONG, child) as trial:
        os.close(child)
        wait_for_trial(trial)
        second = ovsfw(switch, "apply", "--policy", files[0], "--confirm", LONG)
        assert second.returncode == 1
        assert "another change waits to be confirmed" in second.stderr
        if way == "Enter":
            os.write(parent, b"\n")
        else:
            assert ovsfw(switch, "confirm").returncode == 0
        assert trial.wait(PATIENCE) == 0
        assert ovsfw(switch, "verify", "--policy", files[1]).returncode == 0
        assert not stream.goes_on(0.3)
    os.close(parent)
    nothing = ovsfw(switch, "confirm")
    assert (nothing.returncode, nothing.stderr) == (1, "ovsfw: no change of bridge br-int waits to be confirmed\n")
