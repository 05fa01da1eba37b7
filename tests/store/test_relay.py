"""A relay, started as docs/scale.md says, between a host and the database."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ovsfw.policy.model import Policy
from ovsfw.store.client import Remote
from ovsfw.store.server import Server
from ovsfw.store.waiting import wait_for_hosts
from tests.store.test_source import AWAY, POLICY, host, ports_of, put, until

pytestmark = pytest.mark.ovs
# Seconds until a relay says that it has lost the database (RELAY_MAX_RECONNECTION_MS in ovsdb/relay.c).
TOLD_AFTER = 30.0
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


@contextmanager
def relayed(server: Server, directory: Path) -> Iterator[Remote]:
    """The command of the page, with the addresses of this place."""
    command = re.search(r"^ovsdb-server .* relay:OVSFW:\S+$", PAGE.read_text(), re.MULTILINE)
    assert command is not None
    words = shlex.split(command[0])
    address = f"unix:{directory}/relay.sock"
    words = [re.sub(r"^(--remote=)\S+", rf"\1p{address}", word) for word in words]
    words = [re.sub(r"^(relay:OVSFW:)\S+", rf"\1{server.address}", word) for word in words]
    own = [f"--unixctl={directory}/relay.ctl", "-vconsole:off"]
    with subprocess.Popen([*words, *own]) as process:
        try:
            yield Remote.parse(address)
        finally:
            process.terminate()


def test_a_host_behind_a_relay(server: Server, remote: Remote, tmp_path: Path) -> None:
    """It follows the policy and is waited for; and when the database is gone, the relay does not hide it."""

    async def story() -> None:
        await put(remote, POLICY)
        with relayed(server, tmp_path) as relay:
            async with host(str(relay), "vm1", name="far") as source:
                await until(source.policy)
                await source.applied(source.policy() or Policy(), frozenset({"vm1"}))
                generation = await put(remote, {**POLICY, "ports": POLICY["ports"][:1]}, awaited=True)
                await until(lambda: ports_of(source.policy()) == {"vm1": ("web",)})
                await source.applied(source.policy() or Policy(), frozenset({"vm1"}))
                found = await wait_for_hosts(remote, generation, 30)
                assert {each.name: each.ready for each in found.hosts}["far"] == ("vm1",)
                await server.stop()
                await until(lambda: AWAY in source.state().problem, patience=2 * TOLD_AFTER)
                assert ports_of(source.policy()) == {"vm1": ("web",)}
                server.start()
                await until(lambda: not source.state().problem)
                generation = await put(remote, POLICY, awaited=True)
                await until(lambda: source.state().generation == str(generation))

    asyncio.run(story())
