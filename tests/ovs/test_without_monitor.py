"""An Open vSwitch before 3.0, which has no flow monitor: what others do is found by looking, every ten seconds.

The switch is the real one; between it and the daemon is a relay that refuses what an old one refuses, in the words of
2.17.9.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ovsfw.lab.vswitch import PrivateSwitch
from tests.ovs.test_daemon import document, is_verified, ours, plug
from tests.running import running, until

pytestmark = pytest.mark.ovs
_HEADER, _KIND = struct.Struct("!BBHI"), struct.Struct("!H")
_OFPT_ERROR, _MULTIPART_REQUEST, _FLOW_MONITOR = 1, 18, 16
# What 2.17.9 sends, with the transaction id 0: OFPMOFC_BAD_FLAGS, as an error of Nicira's.
_REFUSAL = bytes.fromhex("b0c20000000023200001020600010004")


class Relay:
    """Listens as a bridge, passes everything on to another, and refuses flow monitors; `refused` is how many."""

    def __init__(self, near: Path, far: Path) -> None:
        self.refused = 0
        self._near, self._far = near, far
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(asyncio.start_unix_server(self._serve, str(near)))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_unix_connection(str(self._far))
        answers = asyncio.create_task(self._pass_on(back, writer))
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readexactly(_HEADER.size)
                version, kind, size, _ = _HEADER.unpack(head)
                body = await reader.readexactly(size - _HEADER.size)
                if kind == _MULTIPART_REQUEST and _KIND.unpack_from(body)[0] == _FLOW_MONITOR:
                    self.refused += 1
                    writer.write(_HEADER.pack(version, _OFPT_ERROR, _HEADER.size + len(_REFUSAL), 0) + _REFUSAL)
                else:
                    there.write(head + body)
                    await there.drain()
        there.close()
        await answers

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def old(ovs: PrivateSwitch, bridge: str, tmp_path: Path) -> Iterator[PrivateSwitch]:
    """The same switch with one endpoint, by another run directory."""
    plug(ovs, 1)
    directory = tmp_path / "old"
    directory.mkdir()
    for name in ("db.sock", "ovs-vswitchd.pid", f"ovs-vswitchd.{ovs.pid()}.ctl"):
        (directory / name).symlink_to(ovs.rundir / name)
    relay = Relay(directory / f"{bridge}.mgmt", ovs.rundir / f"{bridge}.mgmt")
    try:
        yield PrivateSwitch(directory, ovs.netns)
        assert relay.refused
    finally:
        relay.close()


def test_what_others_do_is_found_and_undone_all_the_same(
    ovs: PrivateSwitch, old: PrivateSwitch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(document(1, 2))
    with running(old, policy) as daemon:
        assert daemon.in_sync()["sync"]["watching"] is False
        daemon.logged("WARNING Open vSwitch before 3.0 has no flow monitor")
        assert "last compared" in daemon.ask("status")
        right = ours(ovs)
        for harm in (("del-flows", "br-int", "table=105"), ("add-flow", "br-int", "table=139,actions=NORMAL")):
            ovs.ofctl(*harm)
            until(lambda: ours(ovs) == right, daemon.log)
        daemon.logged("repaired: ", times=2)
        policy.write_text(document(1, 2).replace("80", "81"))
        daemon.logged(r"\(policy ")
        assert is_verified(ovs, policy)
