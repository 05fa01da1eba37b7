"""`reject` with a daemon: senders are told at once, by real sockets; a flood is not, and nobody else is ever."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from ovsfw.answering import answer_to
from ovsfw.cli import main
from ovsfw.compiler.pipeline import Reason, cookie
from ovsfw.compiler.recording import ANSWER_METER, ANSWERER, COPIED_BYTES
from ovsfw.lab import topology
from ovsfw.lab.machines import namespace
from ovsfw.lab.topology import Lab
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.openflow.packet_in import PacketIn
from ovsfw.policy.document import parse
from ovsfw.switch import packet_in
from tests.dummy import DummySwitch
from tests.ovs.packets.bench import OPEN, Json, egress, ingress, mac, tier, vm
from tests.ovs.streams import inside
from tests.running import Process, running, until

pytestmark = [pytest.mark.ovs, pytest.mark.packets]

BY_SENDER, BY_RECEIVER, ALLOWED = 7001, 7002, 7003
ADDRESSES = {4: {1: "10.0.0.1", 2: "10.0.0.2"}, 6: {1: "2001:db8::1", 2: "2001:db8::2"}}
KIND = {4: socket.AF_INET, 6: socket.AF_INET6}
FLOOD = 2000
# What the documents say.
BURST, RATE = 100, 100
SO_RCVBUFFORCE = 33  # socket(7); what the kernel cannot keep would not be counted


def rejects(*ports: int) -> list[Json]:
    """What a sender may not send, and what nobody may send to a server."""
    found = [egress(family, kind, BY_SENDER) for family in (4, 6) for kind in ("tcp", "udp")]
    found += [ingress(family, kind, port) for port in ports for family in (4, 6) for kind in ("tcp", "udp")]
    return [{"action": "reject", **rule} for rule in found]


def document(*ports: int, reject: bool = True) -> str:
    """vm1 and vm2, open for everything but what a tier rejects."""
    tiers = [tier("operator", *rejects(BY_RECEIVER, *ports))] if reject else []
    machines = [vm(number, "open", network_id="blue") for number in (1, 2)]
    return json.dumps({"security_groups": [{"id": "open", "rules": OPEN}], "tiers": tiers, "ports": machines})


def write(policy: Path, text: str) -> None:
    """Another file takes the name at once."""
    new = policy.with_suffix(".new")
    new.write_text(text)
    new.rename(policy)


# --- By real sockets --------------------------------------------------------------------------------------------------


class Machines:
    """vm1, vm2, which listens everywhere, and the outside; with a daemon."""

    def __init__(self, lab: Lab, daemon: Process, policy: Path) -> None:
        self.lab, self.daemon, self.policy = lab, daemon, policy

    def inside(self, machine: str, work: Callable[[], Any]) -> Any:
        return inside(namespace(self.lab.place, machine), work)

    def connect(self, machine: str, family: int, port: int) -> float:
        """How long connecting to vm2 took.  Raises OSError."""

        def go() -> float:
            with socket.socket(KIND[family]) as made:
                made.settimeout(10)
                began = time.monotonic()
                try:
                    made.connect((ADDRESSES[family][2], port))
                finally:
                    self.took = time.monotonic() - began
                return self.took

        took: float = self.inside(machine, go)
        return took

    def is_refused(self, machine: str, family: int, port: int) -> bool:
        try:
            self.connect(machine, family, port)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        return False

    def told(self, machine: str, family: int, port: int) -> int:
        """The errno that a datagram to vm2 brings to its sender; 0 for none."""

        def go() -> int:
            with socket.socket(KIND[family], socket.SOCK_DGRAM) as made:
                made.settimeout(10)
                made.connect((ADDRESSES[family][2], port))
                made.send(b"?")
                try:
                    made.recv(10)
                except TimeoutError:
                    return 0
                except OSError as error:
                    return error.errno or 0
                return 0

        found: int = self.inside(machine, go)
        return found


@contextmanager
def listening(lab: Lab) -> Iterator[None]:
    """vm2 takes what comes, so that it is not its kernel that refuses."""
    with ExitStack() as stack:
        for family, port in product((4, 6), (BY_SENDER, BY_RECEIVER, ALLOWED)):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):

                def listen(family: int = family, port: int = port, kind: socket.SocketKind = kind) -> socket.socket:
                    made = socket.socket(KIND[family], kind)
                    made.bind((ADDRESSES[family][2], port))
                    if kind is socket.SOCK_STREAM:
                        made.listen()
                    return made

                stack.enter_context(closing(inside(namespace(lab.place, "vm2"), listen)))
        yield


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    policy = Path(tmp_path_factory.mktemp("reject")) / "policy.json"
    policy.write_text(document())
    place = topology.make_place(f"r{os.getpid()}")
    try:
        lab = topology.up(parse(document(), "reject.json"), place)
        with listening(lab), running(lab.switch, policy) as daemon:
            daemon.in_sync()
            made = Machines(lab, daemon, policy)
            # The first packets may come before anybody listens.
            until(lambda: made.is_refused("vm1", 4, BY_SENDER), "nobody is told")
            yield made
    finally:
        topology.down(place)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", [("vm1", BY_SENDER), ("vm1", BY_RECEIVER), ("outside", BY_RECEIVER)])
def test_a_connection_is_refused_at_once(machines: Machines, way: tuple[str, int], family: int) -> None:
    """At once: before the sender's kernel would ask a second time."""
    times = []
    for _ in range(5):
        assert machines.is_refused(way[0], family, way[1])
        times.append(machines.took)
    assert min(times) < 1.0
    machines.connect(way[0], family, ALLOWED)


@pytest.mark.parametrize(("family", "error"), [(4, errno.EHOSTUNREACH), (6, errno.EACCES)])
@pytest.mark.parametrize("way", [("vm1", BY_SENDER), ("vm1", BY_RECEIVER), ("outside", BY_RECEIVER)])
def test_the_sender_of_a_datagram_is_told(machines: Machines, way: tuple[str, int], family: int, error: int) -> None:
    """Administratively prohibited, as Linux gives it to a program (RFC 1122 section 3.2.2.1, icmp(7))."""
    assert machines.told(way[0], family, way[1]) == error


def test_a_flood_is_not_answered_and_changes_go_through(machines: Machines) -> None:
    syns = [
        bytes(Ether(src=mac(1), dst=mac(2)) / IP(src=ADDRESSES[4][1], dst=ADDRESSES[4][2]) / TCP(sport=port, dport=way))
        for port, way in zip(range(10000, 10000 + FLOOD), (BY_SENDER, BY_RECEIVER) * FLOOD, strict=False)
    ]
    before = machines.daemon.status()["sync"]["changes"]
    began = time.monotonic()
    wire = machines.inside("vm1", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)))
    with closing(wire):
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        wire.bind(("eth0", 0x0800))
        for number, syn in enumerate(syns):
            wire.send(syn)
            if number == FLOOD // 4:
                write(machines.policy, document(ALLOWED))
                machines.daemon.ask("reload")
        until(lambda: machines.daemon.status()["sync"]["changes"] > before, "the change does not go through")
        # Who asks after the flood is told again; by then all answers to the flood have come.
        until(lambda: machines.is_refused("vm1", 4, ALLOWED), "nobody is told any more")
        took, resets = time.monotonic() - began, sum(1 for frame in received(wire) if is_reset(frame))
    assert 0 < resets <= BURST + RATE * took
    write(machines.policy, document())
    machines.daemon.ask("reload")
    until(lambda: machines.daemon.status()["sync"]["changes"] > before + 1, "not put back")


def received(wire: socket.socket) -> Iterator[bytes]:
    wire.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            yield wire.recv(2048)


def is_reset(frame: bytes) -> bool:
    """Of the flood."""
    tcp = Ether(frame).getlayer(TCP)
    return tcp is not None and "R" in tcp.flags and tcp.dport in range(10000, 10000 + FLOOD)


# --- By packets -------------------------------------------------------------------------------------------------------


class Host:
    """A bridge with vm1 and vm2 in VLAN 7 and a trunk to the world, and a daemon."""

    def __init__(self, switch: DummySwitch, daemon: Process, policy: Path) -> None:
        self.switch, self.daemon, self.policy = switch, daemon, policy

    def answers(self, ofport: int, *frames: bytes) -> dict[int, list[bytes]]:
        """What comes out of the switch, until a fresh connection of vm1 is answered."""
        found = self.switch.send(ofport, *frames) if frames else {}
        probe, resets = next(_PROBES), list[Ether]()

        def look() -> bool:
            for port, packets in (*self.switch.send(1, bytes(probe)).items(), *self.switch.sent().items()):
                resets.extend(Ether(data) for data in packets if port == 1 and Ether(data)[TCP].dport == probe.sport)
                found.setdefault(port, []).extend(data for data in packets if Ether(data)[TCP].dport != probe.sport)
            return bool(resets)

        until(look, "nobody is told")
        return {port: packets for port, packets in found.items() if packets}


def syn(source: int, destination: int, port: int = BY_RECEIVER, sport: int = 4000, **over: str) -> Ether:
    ends = {"src": ADDRESSES[4].get(source, "10.0.0.77"), "dst": ADDRESSES[4][destination], **over}
    return Ether(src=mac(source), dst=mac(destination)) / IP(**ends) / TCP(sport=sport, dport=port)


_PROBES = (syn(1, 2, BY_SENDER, sport) for sport in range(20000, 30000))
TRUNK, FAR = 99, 77


@pytest.fixture
def switch(dummy_ovs: PrivateSwitch) -> Iterator[DummySwitch]:
    made = DummySwitch(dummy_ovs, (1, 2, TRUNK))
    for ofport in (1, 2):
        dummy_ovs.vsctl("set", "interface", f"p{ofport}", f"external_ids:iface-id=vm{ofport}")
    made.tag((1, 2), 7)
    # The files into which ports write are those of the bridge before.
    made.sent()
    try:
        yield made
    finally:
        dummy_ovs.vsctl("--if-exists", "del-br", "br-int")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(document())
    return path


@pytest.fixture
def host(switch: DummySwitch, policy: Path) -> Iterator[Host]:
    with running(switch.switch, policy) as daemon:
        daemon.in_sync()
        yield Host(switch, daemon, policy)


def test_the_answer_goes_where_the_packet_came_from_with_its_tag(host: Host) -> None:
    plain = syn(FAR, 2)
    found = host.answers(TRUNK, bytes(Ether(src=plain.src, dst=plain.dst) / Dot1Q(vlan=7, prio=5) / plain.payload))
    [said] = map(Ether, found.pop(TRUNK))
    assert not found
    assert (said.src, said.dst, said[Dot1Q].vlan, said[Dot1Q].prio) == (mac(2), mac(FAR), 7, 5)
    assert (said[IP].dst, said[TCP].flags) == ("10.0.0.77", "RA")


def test_who_forges_its_address_is_not_answered_nor_is_anybody_else(host: Host) -> None:
    """Neither on the side of the sender nor on that of the receiver, whether another's address or nobody's."""
    forged = [syn(1, 2, port, src=source) for port in (BY_SENDER, BY_RECEIVER) for source in ("10.0.0.2", "10.0.0.9")]
    stolen = syn(2, 2)
    assert host.answers(1, *map(bytes, forged), bytes(stolen)) == {}


def test_what_must_not_be_answered(host: Host) -> None:
    reset, noise = syn(1, 2), syn(1, 2)
    reset[TCP].flags = "R"
    noise.dst = "ff:ff:ff:ff:ff:ff"
    assert host.answers(1, bytes(reset), bytes(noise)).keys() <= {TRUNK}


def test_what_is_rejected_is_taken_down_and_counted_too(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--db", host.switch.switch.db]) == 0
        return capsys.readouterr().out

    host.answers(1, bytes(syn(1, 2)))
    until(lambda: "a rule of a tier rejects it" in told("drops", "vm2"), "it is not taken down")
    host.switch.call("revalidator/purge")
    assert "a rule of a tier rejects it" in told("show", "drops", "--policy", str(host.policy))


def test_one_shot_commands_leave_it_as_it_is_and_a_lost_meter_comes_back(host: Host) -> None:
    database = host.switch.switch
    assert main(["verify", "--policy", str(host.policy), "--db", database.db]) == 0
    database.ofctl("del-meters", "br-int")
    host.daemon.ask("reconcile")
    assert f"meter={ANSWER_METER} " in database.ofctl("dump-meters", "br-int")
    assert host.answers(1) == {}


def test_a_policy_that_rejects_nothing_needs_no_meter(switch: DummySwitch, policy: Path) -> None:
    policy.write_text(document(reject=False))
    with running(switch.switch, policy, "--no-record-drops") as daemon:
        daemon.in_sync()
        assert "meter=" not in switch.switch.ofctl("dump-meters", "br-int")
        write(policy, document())
        daemon.ask("reload")
        # A probe that the policy before still accepts would be of a live connection, of which nobody is told.
        until(lambda: "controller(" in switch.switch.ofctl("dump-flows", "br-int"), "it is not rejected")
        Host(switch, daemon, policy).answers(1)
        assert switch.switch.ofctl("dump-meters", "br-int").count("meter=") == 1


def test_without_meters_it_is_dropped_and_the_log_says_so(switch: DummySwitch, policy: Path) -> None:
    """Open vSwitch itself refuses: there is no meter 0."""
    beyond = "from ovsfw.compiler import recording\nrecording.ANSWER_METER = 0"
    with running(switch.switch, policy, "--no-record-drops", before=beyond) as daemon:
        daemon.in_sync()
        daemon.logged("nobody tells the senders: .*the switch refused a meter")
        assert switch.send(1, bytes(syn(1, 2, BY_SENDER))) == {}
        assert 2 in switch.send(1, bytes(syn(1, 2, ALLOWED)))
        assert "controller" not in switch.switch.ofctl("dump-flows", "br-int")
        daemon.ask("reconcile")
        assert len(daemon.logged("nobody tells the senders")) == 1


# --- Copies -----------------------------------------------------------------------------------------------------------


def test_who_is_behind_a_tunnel_is_not_answered(switch: DummySwitch) -> None:
    """What Open vSwitch tells of a packet that came through a tunnel, made here by writing its fields."""
    why = cookie(Reason.REJECTED)
    sends = f"controller(max_len={COPIED_BYTES},id={ANSWERER})"
    for ofport, first in ((1, ""), (2, "set_field:7->tun_id,"), (TRUNK, "set_field:192.0.2.9->tun_src,")):
        switch.switch.ofctl("add-flow", "br-int", f"cookie={why:#x},in_port={ofport},actions={first}{sends}")

    async def hear() -> list[PacketIn]:
        found: list[PacketIn] = []
        copies = packet_in.packets(switch.switch.rundir / "br-int.mgmt", ANSWERER, COPIED_BYTES)
        first = asyncio.ensure_future(anext(copies))
        while not first.done():
            switch.send(1, bytes(syn(1, 2)))
            await asyncio.wait({first}, timeout=0.05)
        found.append(first.result())
        for ofport in (2, TRUNK):
            switch.send(ofport, bytes(syn(1, 2)))
        while {copy.in_port for copy in found} != {1, 2, TRUNK}:
            found.append(await asyncio.wait_for(anext(copies), 30))
        return found

    told = {copy.in_port: copy for copy in asyncio.run(hear())}
    assert {ofport: copy.from_tunnel for ofport, copy in told.items()} == {1: False, 2: True, TRUNK: True}
    assert answer_to(told[1]) is not None
    assert answer_to(told[2]) is None
    assert answer_to(told[1]._replace(cookie=cookie(Reason.DENIED))) is None
    assert answer_to(told[1]._replace(cookie=7)) is None
