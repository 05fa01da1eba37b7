"""Publishing to a real policy database: the last state wins, whoever writes, whatever came between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ovsfw.errors import StoreAwayError
from ovsfw.neutron.publish import GROUP, PORT, REVISION, Objects
from ovsfw.neutron.publisher import Publisher, Snapshot, units_of
from ovsfw.policy.model import Policy
from ovsfw.store.client import Remote
from ovsfw.store.editing import edit, read
from ovsfw.store.objects import KINDS, added, deleted
from ovsfw.store.part import Part
from ovsfw.store.rows import Key
from ovsfw.store.server import Server
from tests.cloud import Cloud, rule
from tests.store.conftest import serving

pytestmark = pytest.mark.ovs


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A database for each test: its generation matters."""
    with serving(tmp_path / "store") as made:
        yield made


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.group("web", rule("http", protocol="tcp", port_range_min=80, port_range_max=80, remote_group_id="lb"))
    made.group("lb", rule("lb-office", remote_address_group_id="office"))
    made.address_group("office", "192.0.2.0/24")
    made.port(1, "web")
    made.port(2, "lb")
    return made


def generation(remote: Remote) -> int:
    return asyncio.run(read(remote)).generation


def policy(remote: Remote) -> Policy:
    """As the host of all ports would read it.  Raises PolicyError where rows refer to what is not there."""
    contents = asyncio.run(read(remote))
    part = Part("test", frozenset(key.id for key in contents.rows if key.table == PORT))
    for key, columns in contents.rows.items():
        part.put(key, columns)
    return part.policy()


def expected(cloud: Cloud, remote: Remote) -> bool:
    """Whether the database is as Neutron says."""
    return not asyncio.run(Publisher(remote, cloud.snapshot).compare()).change.difference


def test_a_database_without_a_policy_gets_all_of_it_at_once(remote: Remote, cloud: Cloud) -> None:
    asyncio.run(Publisher(remote, cloud.snapshot).publish([Key(PORT, "vm1")]))
    assert generation(remote) == 1
    assert set(policy(remote).ports) == {"vm1", "vm2"}
    assert expected(cloud, remote)


def test_an_empty_neutron_is_a_policy_too(remote: Remote) -> None:
    asyncio.run(Publisher(remote, Cloud().snapshot).repair())
    assert generation(remote) == 1


def test_what_an_object_refers_to_comes_with_it(remote: Remote, cloud: Cloud) -> None:
    publisher = Publisher(remote, cloud.snapshot)
    asyncio.run(publisher.repair())
    cloud.address_group("home", "198.51.100.0/24")
    cloud.group("third", rule("third-home", remote_address_group_id="home"))
    cloud.group("second", rule("second-third", remote_group_id="third"))
    asyncio.run(publisher.publish([cloud.port(3, "second")]))
    assert policy(remote).security_groups.keys() >= {"second", "third"}
    assert expected(cloud, remote)
    assert generation(remote) == 2


def test_a_group_that_goes_with_the_rules_that_name_it_leaves_nothing_dangling(remote: Remote, cloud: Cloud) -> None:
    publisher = Publisher(remote, cloud.snapshot)
    asyncio.run(publisher.repair())
    cloud.port(2)
    asyncio.run(publisher.publish([cloud.delete(Key(GROUP, "lb"))]))
    assert not policy(remote).security_groups["lb"].rules
    found = asyncio.run(publisher.repair()).change
    assert found.difference.delete == (Key("Rule", "http"), Key(GROUP, "lb"))
    assert "lb" not in policy(remote).security_groups
    assert expected(cloud, remote)


def test_what_hosts_need_not_know_is_no_new_generation(remote: Remote, cloud: Cloud) -> None:
    publisher = Publisher(remote, cloud.snapshot)
    asyncio.run(publisher.repair())
    asyncio.run(publisher.publish([cloud.port(1, "web")]))
    assert generation(remote) == 1
    assert expected(cloud, remote)


def test_a_reader_that_is_late_overwrites_nothing(remote: Remote, cloud: Cloud) -> None:
    """A replica of Neutron's database that is behind."""
    late = Cloud()
    late.objects = {key: dict(data) for key, data in cloud.objects.items()}
    cloud.port(1, "lb")
    asyncio.run(Publisher(remote, cloud.snapshot).repair())
    change = asyncio.run(Publisher(remote, late.snapshot).publish([Key(PORT, "vm1")]))
    assert change.stale == {Key(PORT, "vm1")}
    assert policy(remote).ports["vm1"].security_groups == ("lb",)


def test_who_has_read_before_somebody_wrote_reads_again(remote: Remote, cloud: Cloud) -> None:
    """Between its reading of both databases and its transaction, another server publishes something newer."""
    other = Publisher(remote, cloud.snapshot)
    asyncio.run(other.repair())

    class Slow(Cloud):
        """Reads, and is then overtaken once."""

        def read(self, units: Collection[Key]) -> Objects:
            found = super().read(units)
            if not interrupted:
                interrupted.append(cloud.port(1))
                run_in_thread(other.publish([Key(PORT, "vm1")]))
            return found

    interrupted: list[Key] = []

    @contextmanager
    def slow() -> Iterator[Snapshot]:
        with cloud.snapshot() as now:
            reader = Slow()
            reader.objects = now.objects
            yield reader

    cloud.port(1, "lb")
    asyncio.run(Publisher(remote, slow).publish([Key(PORT, "vm1")]))
    assert interrupted
    assert policy(remote).ports["vm1"].security_groups == ()
    assert expected(cloud, remote)


def run_in_thread(work: object) -> None:
    """To the end, while this loop stands still."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()  # type: ignore[arg-type]


def test_many_writers_end_in_the_last_state(remote: Remote, cloud: Cloud) -> None:
    publishers = [Publisher(remote, cloud.snapshot) for _ in range(4)]
    asyncio.run(publishers[0].repair())
    chance = random.Random(7)  # noqa: S311 - a seeded story

    async def work(publisher: Publisher) -> None:
        for _ in range(12):
            groups = [name for name in ("web", "lb") if chance.random() < 0.5]
            await publisher.publish([cloud.port(chance.randrange(1, 4), *groups)])

    async def all_at_once() -> None:
        await asyncio.gather(*(work(each) for each in publishers))

    asyncio.run(all_at_once())
    assert expected(cloud, remote)


def test_repair_mends_what_differs_and_nothing_else(remote: Remote, cloud: Cloud) -> None:
    publisher = Publisher(remote, cloud.snapshot)
    asyncio.run(publisher.repair())
    group, port = KINDS["group"], KINDS["port"]
    asyncio.run(edit(remote, lambda document: deleted(document, port, ["vm1"])))
    asyncio.run(edit(remote, lambda document: added(document, group, "mine", {})))
    asyncio.run(edit(remote, lambda document: added(document, port, "metal", {"mac_address": "52:54:00:00:00:09"})))
    asyncio.run(
        edit(
            remote,
            lambda document: {
                **document,
                "security_groups": [
                    {**each, "rules": [{"direction": "ingress"}]} if each["id"] == "web" else each
                    for each in document["security_groups"]
                ],
            },
        )
    )
    plan = asyncio.run(publisher.compare())
    assert units_of(plan) == {Key(PORT, "vm1"), Key(GROUP, "web")}
    asyncio.run(publisher.repair())
    found = policy(remote)
    assert {"vm1", "metal"} <= found.ports.keys()
    assert [each.id for each in found.security_groups["web"].rules] == ["http"]
    assert "mine" in found.security_groups
    assert expected(cloud, remote)
    rows = asyncio.run(publisher.compare()).old
    assert rows[Key(PORT, "metal")][REVISION] is None


def test_of_many_servers_one_compares(remote: Remote, cloud: Cloud) -> None:
    publisher = Publisher(remote, cloud.snapshot)

    async def turns() -> list[bool]:
        return await asyncio.gather(*(publisher.take_turn(60) for _ in range(5)))

    assert sum(asyncio.run(turns())) == 1
    assert not asyncio.run(publisher.take_turn(60))
    assert asyncio.run(publisher.take_turn(0))


def test_a_database_that_is_away_is_told(server: Server, remote: Remote, cloud: Cloud) -> None:
    asyncio.run(server.stop())
    with pytest.raises(StoreAwayError, match="cannot reach the policy database"):
        asyncio.run(Publisher(remote, cloud.snapshot).publish([Key(PORT, "vm1")]))
