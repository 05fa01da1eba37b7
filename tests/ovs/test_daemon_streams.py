"""No packet of an allowed stream is lost, whatever the daemon does meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ovsfw.lab import machines, topology
from ovsfw.lab.topology import Lab
from ovsfw.policy.document import parse
from tests.ovs.test_daemon_outside import scrape, value
from tests.running import PATIENCE, Process, running, until

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
STREAM = Path(topology.__file__).with_name("stream.py")
PORT = "7000"
# By protocol, what `stream.py send` prints.
Streams: TypeAlias = dict[str, dict[str, Any]]


def document(unrelated: int = 0) -> str:
    """Two endpoints that talk to each other, and a group whose rules and members are nothing to them."""
    groups: list[dict[str, Any]] = [
        {
            "id": "talk",
            "rules": [
                {"direction": "ingress", "protocol": protocol, "port_range_min": 7000, "port_range_max": 7000}
                for protocol in ("udp", "tcp")
            ]
            + [{"direction": "egress"}],
        },
        {
            "id": "other",
            "rules": [
                {"direction": "ingress", "protocol": "tcp", "port_range_min": 1000 + unrelated, "port_range_max": 3000}
            ],
        },
    ]
    ports = [
        {
            "id": f"vm{number}",
            "mac_address": f"52:54:00:00:00:{number:02x}",
            "fixed_ips": [{"ip_address": f"10.9.0.{number}"}],
            "security_groups": ["other" if number > 2 else "talk"],
        }
        for number in (1, 2, 3, *range(10, 11 + unrelated % 7))
    ]
    return json.dumps({"security_groups": groups, "ports": ports})


def write(policy: Path, text: str) -> None:
    """Another file takes the name at once."""
    new = policy.with_suffix(".new")
    new.write_text(text)
    new.rename(policy)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    place = topology.make_place(f"s{os.getpid()}")
    try:
        yield topology.up(parse(document(), "streams.json"), place)
    finally:
        topology.down(place)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(document())
    return path


def start(lab: Lab, machine: str, *words: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", machines.namespace(lab.place, machine), sys.executable, "-I", str(STREAM), *words]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


@contextmanager
def streams(lab: Lab) -> Iterator[Streams]:
    """UDP and TCP from vm1 to vm2 and back meanwhile; afterwards, what became of them is in the dictionary."""
    found: Streams = {}
    with ExitStack() as stack:
        server = start(lab, "vm2", "serve", "10.9.0.2", PORT)
        stack.callback(server.wait, PATIENCE)
        stack.callback(server.kill)
        senders = {kind: start(lab, "vm1", "send", kind, "10.9.0.1", "10.9.0.2", PORT) for kind in ("udp", "tcp")}
        for sender in senders.values():
            stack.callback(sender.kill)
        yield found
        for kind, sender in senders.items():
            found[kind] = json.loads(sender.communicate(timeout=PATIENCE)[0])


def nothing_is_lost(found: Streams) -> bool:
    assert found.keys() == {"udp", "tcp"}
    for kind, numbers in found.items():
        assert numbers["sent"] > 20, f"{kind}: {numbers}"
        assert numbers["sent"] == numbers["answered"], f"{kind}: {numbers}"
    return True


def wait_for_changes(daemon: Process, changes: int) -> None:
    until(lambda: daemon.status()["sync"]["changes"] >= changes, f"{changes} changes: {daemon.log}")


def test_fifty_unrelated_changes(lab: Lab, policy: Path) -> None:
    with running(lab.switch, policy) as daemon:
        daemon.in_sync()
        with streams(lab) as found:
            before = daemon.status()["sync"]["changes"]
            for number in range(1, 51):
                write(policy, document(number))
                daemon.ask("reload")
                wait_for_changes(daemon, before + number)
        assert nothing_is_lost(found)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart(lab: Lab, policy: Path, how: signal.Signals) -> None:
    with running(lab.switch, policy) as daemon:
        daemon.in_sync()
        with streams(lab) as found:
            daemon.end(how)
            with running(lab.switch, policy) as again:
                assert again.in_sync()["sync"]["flow_mods"] == 0
        assert nothing_is_lost(found)


def test_another_version_of_the_pipeline(lab: Lab, policy: Path) -> None:
    """All flows are written anew, in one atomic bundle, and back."""
    with running(lab.switch, policy) as daemon:
        total = daemon.in_sync()["flows"]["total"]
    newer = "from ovsfw.compiler import reasons\nreasons.VERSION += 1"
    # The cookie of the hook's flow is made while the package is imported, before `newer` can say another version.
    with streams(lab) as found:
        with running(lab.switch, policy, before=newer) as daemon:
            assert daemon.in_sync()["sync"]["flow_mods"] == total - 1
            assert daemon.status()["sync"]["changes"] == 1
        with running(lab.switch, policy) as daemon:
            assert daemon.in_sync()["sync"]["flow_mods"] == total - 1
    assert nothing_is_lost(found)


def metrics_of(daemon: Process) -> int:
    """The port where it serves them."""
    return int(daemon.logged("metrics: http://127.0.0.1:")[0].split(":")[-1].split("/")[0])


def are_dropped(port: int, reason: str) -> bool:
    return value(scrape(port), f'ovsfw_dropped_packets_total{{reason="{reason}"}}') > 10


def test_metrics_count_connections_and_drops(lab: Lab, policy: Path) -> None:
    with running(lab.switch, policy, "--metrics", "127.0.0.1:0") as daemon:
        daemon.in_sync()
        port = metrics_of(daemon)
        with streams(lab):
            # The group of vm3 lets nothing out.
            stranger = start(lab, "vm3", "send", "udp", "10.9.0.3", "10.9.0.2", PORT)
            until(lambda: are_dropped(port, "denied"), "drops")
            stranger.communicate(timeout=PATIENCE)
            assert value(scrape(port), 'ovsfw_connections{network="4096"}') >= len(("udp", "tcp"))


def test_a_stream_that_is_not_allowed_shows_that_loss_is_seen(lab: Lab, policy: Path) -> None:
    with running(lab.switch, policy, "--metrics", "127.0.0.1:0") as daemon:
        daemon.in_sync()
        with streams(lab) as found:
            write(policy, document().replace("7000", "7001"))
            daemon.logged(r"[1-9]\d* cut")
            # A sender that has to wait for the processor must not be ended before it has sent anything in vain.
            until(lambda: are_dropped(metrics_of(daemon), "blocked"), "packets of what was cut")
    with pytest.raises(AssertionError, match="udp: "):
        nothing_is_lost(found)
    assert found["tcp"]["answered"] < found["tcp"]["sent"]
