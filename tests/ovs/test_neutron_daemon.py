"""`ovsfw run --hook neutron`: the daemon inside the flows of Neutron's agent, on a real switch; needs no Neutron."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.neutron.engine import Engine
from ovsfw.policy.writing import Document
from ovsfw.store import setup
from ovsfw.store.client import Remote
from ovsfw.store.editing import edit
from ovsfw.store.server import Server
from ovsfw.store.waiting import status
from tests.dummy import BRIDGE, DummySwitch
from tests.neutron_agent import add_agent_flows
from tests.ovs.packets.bench import address, mac
from tests.ovs.packets.frames import tcp
from tests.running import PATIENCE, Process, running, until

pytestmark = pytest.mark.ovs
VLAN, DEAD = 7, 4095
UPLINK = 9
NEUTRON = ("--hook", "neutron")


def name(number: int) -> str:
    return f"port-{number}"


def document() -> Document:
    """Port 1 serves members of `app`, which port 2 is and port 3 is not."""
    web = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    groups = [{"id": "web", "rules": [{**web, "remote_group_id": "app"}]}]
    groups += [{"id": group, "rules": [{"direction": "egress"}]} for group in ("app", "other")]
    ports = [
        {
            "id": name(number),
            "mac_address": mac(number),
            "fixed_ips": [{"ip_address": address(4, number)}],
            "security_groups": [group],
        }
        for number, group in ((1, "web"), (2, "app"), (3, "other"))
    ]
    return {"security_groups": groups, "ports": ports}


@pytest.fixture(scope="module")
def host(dummy_ovs: PrivateSwitch) -> DummySwitch:
    """Ports 1 to 3 belong to VMs, 9 is the way out; all are wired."""
    switch = DummySwitch(dummy_ovs, (1, 2, 3, UPLINK))
    for number in (1, 2, 3):
        dummy_ovs.vsctl("set", "interface", f"p{number}", f"external_ids:iface-id={name(number)}")
    return switch


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("store"))
    made.create()
    made.start()
    try:
        asyncio.run(setup.initialise(Remote.parse(made.address)))
        asyncio.run(edit(Remote.parse(made.address), lambda _: document()))
        yield made
    finally:
        asyncio.run(made.stop())


@pytest.fixture
def daemon(host: DummySwitch, server: Server, tmp_path: Path) -> Iterator[Process]:
    """At work beside an agent that has wired all ports."""
    host.switch.ofctl("del-flows", BRIDGE)
    host.tag((1, 2, 3), VLAN)
    add_agent_flows(host.switch, BRIDGE)
    words = ("--policy", server.address, "--host", "h1", "--bridge", BRIDGE)
    with running(host.switch, tmp_path / "none", *words, *NEUTRON) as process:
        process.in_sync()
        yield process


def reaches(host: DummySwitch, sender: int, receiver: int) -> bool:
    """Whether a new connection's first packet arrives."""
    host.forget()
    return receiver in host.send(sender, bytes(tcp(4, f"vm{sender}", f"vm{receiver}", dport=80)))


def ready(server: Server) -> tuple[str, ...]:
    """The ports that the host says are ready."""
    return next((host.ready for host in asyncio.run(status(Remote.parse(server.address))).hosts), ())


def test_it_filters_inside_the_flows_of_the_agent(host: DummySwitch, daemon: Process) -> None:
    assert reaches(host, 2, 1)
    assert not reaches(host, 3, 1)
    assert not reaches(host, 2, 3)
    assert "cookie=0xf5f" in host.switch.ofctl("dump-flows", BRIDGE, "table=60")
    assert "cookie=0xf5f" not in host.switch.ofctl("dump-flows", BRIDGE, "table=0")
    assert daemon.process.poll() is None


@pytest.mark.parametrize("vlan", [0, DEAD])
def test_a_port_that_the_agent_has_not_wired_passes_nothing_and_is_not_ready(
    host: DummySwitch, daemon: Process, server: Server, vlan: int
) -> None:
    until(lambda: ready(server) == (name(1), name(2), name(3)), "all are ready")
    host.tag((2,), vlan)
    daemon.logged(f"port {name(2)} re-tagged")
    assert not reaches(host, 2, 1)
    until(lambda: ready(server) == (name(1), name(3)), "the one without a VLAN is not")
    host.tag((2,), VLAN)
    until(lambda: ready(server) == (name(1), name(2), name(3)), "all are ready again")
    assert reaches(host, 2, 1)


def test_a_way_in_that_was_cleared_away_is_put_back_and_told(host: DummySwitch, daemon: Process) -> None:
    """As the agent does after its start, unless the extension tells it not to."""
    host.switch.ofctl("del-flows", BRIDGE, "table=60")
    daemon.logged("ERROR the flow that leads into the filter was gone: .* unless it has `extensions = ovsfw`")
    daemon.logged("repaired: .*flows")
    add_agent_flows(host.switch, BRIDGE)
    assert reaches(host, 2, 1)
    assert not reaches(host, 3, 1)


def test_the_driver_of_the_agent_refuses_to_begin_beside_it(host: DummySwitch, daemon: Process) -> None:
    with pytest.raises(ConfigError, match=r"ovsfw\.pid"):
        Engine(BRIDGE, host.switch.db)
    assert daemon.process.poll() is None


def test_it_refuses_to_begin_beside_the_driver_of_the_agent(host: DummySwitch, tmp_path: Path) -> None:
    """Whose process is another one, with the engine in it."""
    file = tmp_path / "policy.json"
    file.write_text("{}")
    begin = f"Engine({BRIDGE!r}, {host.switch.db!r}); print('up', flush=True); input()"
    agent = f"from ovsfw.neutron.engine import Engine; {begin}"
    with subprocess.Popen(
        [sys.executable, "-c", agent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.switch.environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with running(host.switch, file, *NEUTRON, "--bridge", BRIDGE) as second:
            assert second.process.wait(PATIENCE) == 1
            assert "ovsfw.pid" in second.log
        process.kill()


@pytest.mark.usefixtures("daemon")
def test_commands_see_where_the_filter_hangs(host: DummySwitch, tmp_path: Path) -> None:
    """What the daemon has put there is right as it is, and `apply` leaves it so."""
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(document()))
    before = host.switch.ofctl("--no-stats", "dump-flows", BRIDGE)
    for command in ("verify", "diff", "apply"):
        words = (
            sys.executable,
            "-m",
            "ovsfw",
            command,
            "--policy",
            str(file),
            "--bridge",
            BRIDGE,
            "--db",
            host.switch.db,
        )
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, "comes before" in done.stderr + done.stdout) == (0, False), done
    assert host.switch.ofctl("--no-stats", "dump-flows", BRIDGE) == before
