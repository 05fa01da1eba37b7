"""The thread that publishes for a server process: nothing that was marked is lost, whatever is away meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ovsfw.neutron.publish import PORT
from ovsfw.neutron.publishing import Publishing, Settings
from ovsfw.store.client import Remote, connected
from ovsfw.store.editing import edit, read, transact
from ovsfw.store.objects import KINDS, deleted
from ovsfw.store.rows import Key
from ovsfw.store.server import Server
from tests.cloud import Cloud
from tests.running import PATIENCE
from tests.store.conftest import serving

pytestmark = pytest.mark.ovs


class Waiting:
    """The ports of Neutron that wait for their flows, and those that need not any more."""

    def __init__(self) -> None:
        self.ports: dict[str, str] = {}
        self.completed: list[str] = []
        self.deaf = 0

    def complete(self, port: str) -> bool:
        self.deaf -= 1
        if self.deaf >= 0:
            return False
        self.ports.pop(port, None)
        self.completed.append(port)
        return True

    def blocked(self) -> Mapping[str, str]:
        return dict(self.ports)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "store") as made:
        yield made


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.group("web")
    made.port(1, "web")
    return made


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def publishing(remote: Remote, cloud: Cloud, waiting: Waiting) -> Iterator[Publishing]:
    """Which compares seldom, so that what is published was marked."""
    made = Publishing(Settings(remote, 0.2, 0), cloud.snapshot, waiting)
    yield made
    made.close()


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ports(remote: Remote) -> set[str]:
    return {key.id for key in asyncio.run(read(remote)).rows if key.table == PORT}


def test_what_is_marked_is_published(remote: Remote, cloud: Cloud, publishing: Publishing) -> None:
    publishing.mark([Key(PORT, "vm1")])
    until(lambda: ports(remote) == {"vm1"})
    publishing.mark([cloud.port(2, "web"), cloud.port(3)])
    until(lambda: ports(remote) == {"vm1", "vm2", "vm3"})
    publishing.mark([cloud.delete(Key(PORT, "vm1"))])
    until(lambda: ports(remote) == {"vm2", "vm3"})


def test_what_is_marked_in_an_outage_comes_after_it(
    server: Server, remote: Remote, cloud: Cloud, publishing: Publishing, caplog: pytest.LogCaptureFixture
) -> None:
    publishing.mark([Key(PORT, "vm1")])
    until(lambda: ports(remote) == {"vm1"})
    asyncio.run(server.stop())
    publishing.mark([cloud.port(2, "web")])
    until(lambda: "wait to be published" in caplog.text)
    publishing.mark([cloud.delete(Key(PORT, "vm1"))])
    server.start()
    until(lambda: ports(remote) == {"vm2"})
    assert caplog.text.count("wait to be published") <= 2, "it is said once for every reason"


def test_neutrons_database_away_loses_nothing(remote: Remote, cloud: Cloud, waiting: Waiting) -> None:
    fails = 3

    class Broken(Cloud):
        def snapshot(self):  # type: ignore[no-untyped-def] # noqa: ANN202
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise RuntimeError("the database is away")
            return super().snapshot()

    broken = Broken()
    broken.objects = cloud.objects
    publishing = Publishing(Settings(remote, 0.2, 0), broken.snapshot, waiting)
    publishing.mark([Key(PORT, "vm1")])
    until(lambda: ports(remote) == {"vm1"})
    publishing.close()


def test_a_process_that_was_forked_publishes_too(remote: Remote, cloud: Cloud, publishing: Publishing) -> None:
    publishing.mark([Key(PORT, "vm1")])
    until(lambda: ports(remote) == {"vm1"})
    child = os.fork()
    if not child:
        publishing.mark([cloud.port(2)])
        until(lambda: "vm2" in ports(remote))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ports(remote) == {"vm1", "vm2"}


def test_what_nobody_has_marked_is_found(remote: Remote, cloud: Cloud, waiting: Waiting) -> None:
    publishing = Publishing(Settings(remote, 0.2, 1.0), cloud.snapshot, waiting)
    publishing.begin()
    until(lambda: ports(remote) == {"vm1"})
    cloud.port(2)
    until(lambda: ports(remote) == {"vm1", "vm2"})
    asyncio.run(edit(remote, lambda document: deleted(document, KINDS["port"], ["vm1"])))
    until(lambda: ports(remote) == {"vm1", "vm2"})
    publishing.close()


def say(remote: Remote, host: str, *names: str, seen: float | None = None) -> None:
    """What a host says of itself."""
    row = {"name": host, "ready": ["set", list(names)], "last_seen": int(seen or time.time())}
    delete = {"op": "delete", "table": "Host", "where": [["name", "==", host]]}

    async def write() -> None:
        async with connected(remote) as connection:
            await transact(connection, [delete, {"op": "insert", "table": "Host", "row": row}])

    asyncio.run(write())


def test_a_port_waits_until_its_host_has_its_flows(remote: Remote, publishing: Publishing, waiting: Waiting) -> None:
    say(remote, "h1")
    say(remote, "h2", "vm1")
    say(remote, "dead", "vm2", seen=time.time() - 3600)
    publishing.begin()
    until(lambda: publishing.readiness.is_known("h1"))
    assert not publishing.readiness.is_known("h3")
    publishing.wait_for_flows("vm1", "h1")
    publishing.wait_for_flows("vm2", "dead")
    publishing.wait_for_flows("vm3", "h2")
    say(remote, "h2", "vm1", "vm3")
    until(lambda: waiting.completed == ["vm3"])
    say(remote, "h1", "vm1")
    until(lambda: waiting.completed == ["vm3", "vm1"])
    say(remote, "dead", "vm2")
    until(lambda: waiting.completed == ["vm3", "vm1", "vm2"])


def test_a_port_whose_server_has_ended_is_adopted(remote: Remote, cloud: Cloud, waiting: Waiting) -> None:
    say(remote, "h1", "vm1")
    waiting.ports["vm1"] = "h1"
    publishing = Publishing(Settings(remote, 0.2, 1.0), cloud.snapshot, waiting)
    publishing.begin()
    until(lambda: waiting.completed == ["vm1"])
    publishing.close()


def test_neutron_is_told_until_it_hears(remote: Remote, publishing: Publishing, waiting: Waiting) -> None:
    waiting.deaf = 2
    say(remote, "h1", "vm1")
    publishing.wait_for_flows("vm1", "h1")
    until(lambda: waiting.completed == ["vm1"])
