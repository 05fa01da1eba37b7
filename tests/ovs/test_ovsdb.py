from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ovsfw.compiler.bindings import Binding, Bindings, Uplink, VlanMode
from ovsfw.errors import SwitchError
from ovsfw.lab.vswitch import PrivateSwitch
from ovsfw.switch.ovsdb import Ovsdb
from ovsfw.switch.rundir import control_socket
from ovsfw.switch.unixctl import unixctl

pytestmark = [pytest.mark.ovs, pytest.mark.usefixtures("bridge")]
LOCAL = Uplink(0xFFFFFFFE)


@asynccontextmanager
async def connected(ovs: PrivateSwitch) -> AsyncIterator[Ovsdb]:
    ovsdb = Ovsdb()
    await ovsdb.connect(ovs.db)
    try:
        yield ovsdb
    finally:
        ovsdb.close()


def snapshot(ovs: PrivateSwitch) -> Bindings:
    async def run() -> Bindings:
        async with connected(ovs) as ovsdb:
            return ovsdb.snapshot("br-int")

    return asyncio.run(run())


def plug(ovs: PrivateSwitch, name: str, ofport: int, *settings: str, port: tuple[str, ...] = ()) -> None:
    interface = ("set", "interface", name, "type=internal", f"ofport_request={ofport}", *settings)
    ovs.vsctl("add-port", "br-int", name, *port, "--", *interface)


def test_a_new_bridge_has_its_own_port_as_uplink(ovs: PrivateSwitch) -> None:
    assert snapshot(ovs) == Bindings((), (LOCAL,))


def test_what_has_an_iface_id_is_an_endpoint(ovs: PrivateSwitch) -> None:
    plug(ovs, "vm2", 9, "external_ids:iface-id=b", port=("tag=7",))
    plug(ovs, "vm1", 4, "external_ids:iface-id=a")
    assert snapshot(ovs) == Bindings((Binding("a", 4), Binding("b", 9, 7)), (LOCAL,))


@pytest.mark.parametrize(
    ("settings", "uplink"),
    [
        ((), Uplink(3)),
        (("tag=5",), Uplink(3, VlanMode.ACCESS, 5)),
        (("tag=5", "vlan_mode=trunk"), Uplink(3)),
        (("trunks=5,6",), Uplink(3)),
        (("vlan_mode=access",), Uplink(3, VlanMode.ACCESS)),
        (("tag=5", "vlan_mode=native-tagged"), Uplink(3, VlanMode.NATIVE, 5)),
        (("tag=5", "vlan_mode=native-untagged"), Uplink(3, VlanMode.NATIVE, 5)),
        (("tag=5", "vlan_mode=dot1q-tunnel"), Uplink(3, VlanMode.ACCESS, 5)),
    ],
)
def test_the_vlan_of_an_uplink(ovs: PrivateSwitch, settings: tuple[str, ...], uplink: Uplink) -> None:
    plug(ovs, "up", 3, port=settings)
    assert snapshot(ovs).uplinks == (uplink, LOCAL)


def test_every_interface_of_a_bond_counts(ovs: PrivateSwitch) -> None:
    members = [("set", "interface", f"m{number}", "type=internal", f"ofport_request={number}") for number in (2, 3)]
    ovs.vsctl("add-bond", "br-int", "bond", "m2", "m3", "tag=4", "--", *members[0], "--", *members[1])
    assert snapshot(ovs).uplinks == (Uplink(2, VlanMode.ACCESS, 4), Uplink(3, VlanMode.ACCESS, 4), LOCAL)


def test_what_has_no_number_is_left_out(ovs: PrivateSwitch) -> None:
    ovs.run("ovs-vsctl", "--no-wait", "add-port", "br-int", "absent", "--", "set", "interface", "absent",
            "external_ids:iface-id=x")  # fmt: skip
    ovs.vsctl("set", "bridge", "br-int", "external_ids:wait=1")
    assert snapshot(ovs) == Bindings((), (LOCAL,))


def test_a_change_wakes(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as ovsdb:
            ovsdb.changed.clear()
            await asyncio.to_thread(plug, ovs, "vm1", 4, "external_ids:iface-id=a")
            while not ovsdb.snapshot("br-int").endpoints:
                await asyncio.wait_for(ovsdb.changed.wait(), 10)
                ovsdb.changed.clear()
            assert ovsdb.snapshot("br-int").endpoints == (Binding("a", 4),)

    asyncio.run(run())


def test_facts_about_the_switch(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as ovsdb:
            assert ovsdb.bridges() == ["br-int"]
            assert ovsdb.fail_mode("br-int") == "secure"
            assert f"(Open vSwitch) {ovsdb.ovs_version}" in ovs.appctl("version")

    asyncio.run(run())


def test_a_lost_connection_forgets_nothing_and_comes_back(ovs: PrivateSwitch) -> None:
    plug(ovs, "vm1", 4, "external_ids:iface-id=a")

    async def run() -> None:
        async with connected(ovs) as ovsdb:
            seen = [ovsdb.snapshot("br-int").endpoints]
            ovs.appctl("-t", "ovsdb-server", "ovsdb-server/reconnect")
            # The loop stands still meanwhile, so this comes after the connection is gone.
            ovs.vsctl("set", "interface", "vm1", "external_ids:iface-id=b")
            while seen[-1] != (Binding("b", 4),):
                ovsdb.changed.clear()
                await asyncio.wait_for(ovsdb.changed.wait(), 20)
                seen.append(ovsdb.snapshot("br-int").endpoints)
            assert set(seen) == {(Binding("a", 4),), (Binding("b", 4),)}

    asyncio.run(run())


def test_a_missing_bridge_is_named_with_those_there_are(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        async with connected(ovs) as ovsdb:
            with pytest.raises(SwitchError, match=r"no bridge br-x \(there are br-int\).*ovs-vsctl add-br br-x"):
                ovsdb.snapshot("br-x")

    asyncio.run(run())


def test_an_old_switch_is_refused(ovs: PrivateSwitch) -> None:
    version = ovs.vsctl("get", "Open_vSwitch", ".", "ovs_version").strip()
    ovs.vsctl("set", "Open_vSwitch", ".", 'ovs_version="2.16.9"')
    try:
        with pytest.raises(SwitchError, match=r"2\.16\.9 is too old: ovsfw needs 2\.17"):
            snapshot(ovs)
    finally:
        ovs.vsctl("set", "Open_vSwitch", ".", f"ovs_version={version}")


@pytest.mark.parametrize("db", ["unix:{dir}/db.sock", "tcp:127.0.0.1:1"])
def test_no_database_is_said_at_once(tmp_path: Path, db: str) -> None:
    with pytest.raises(SwitchError, match=r"not running in|cannot connect"):
        asyncio.run(Ovsdb().connect(db.format(dir=tmp_path)))


def test_the_client_says_nothing_on_its_own(ovs: PrivateSwitch) -> None:
    script = (
        "import asyncio, sys\nfrom ovsfw.switch.ovsdb import Ovsdb\n"
        "async def main():\n o = Ovsdb(); await o.connect(sys.argv[1]); print(o.bridges()); o.close()\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-W", "default", "-c", script, ovs.db]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['br-int']\n", "")


def test_unixctl_asks_the_switch(ovs: PrivateSwitch) -> None:
    async def run() -> None:
        path = control_socket(rundir=ovs.rundir)
        assert "Open vSwitch" in await unixctl(path, "version")
        assert "Datapath actions: drop" in await unixctl(path, "ofproto/trace", "br-int", "in_port=LOCAL")
        with pytest.raises(SwitchError, match=r"ofproto/trace: .*no-such-bridge"):
            await unixctl(path, "ofproto/trace", "no-such-bridge", "in_port=1")

    asyncio.run(run())


def test_a_large_answer_of_unixctl_comes_whole(ovs: PrivateSwitch) -> None:
    lines = "\n".join(f"table=9,reg0={number},actions=drop" for number in range(20_000))
    ovs.ofctl("--bundle", "add-flows", "br-int", "-", stdin=lines)

    async def run() -> str:
        return await unixctl(control_socket(rundir=ovs.rundir), "bridge/dump-flows", "br-int")

    assert asyncio.run(run()).count("table_id=9") == 20_000


def test_a_daemon_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(SwitchError, match="ovs-vswitchd is not running in"):
        control_socket(rundir=tmp_path)
    with pytest.raises(SwitchError, match="not running in"):
        asyncio.run(unixctl(tmp_path / "ovs-vswitchd.1.ctl", "version"))
