"""Three real servers, two real hosts with real daemons: the leader is killed, a host is cut off; nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab import netns
from ovsfw.lab.cluster import Cluster
from ovsfw.lab.failover import AWAY, Story

pytestmark = [pytest.mark.ovs, pytest.mark.packets]


def test_nothing_is_lost_with_the_leader_nor_with_the_network(tmp_path: Path) -> None:
    name = f"t{os.getpid()}"
    cluster = Cluster(name, tmp_path / "c")
    said: list[str] = []
    with cluster.up():
        outcome = Story(cluster, said.append).tell()
        tunnelled = [
            switch.vsctl("get", "interface", "vxlan", "statistics:tx_packets") for switch in cluster.switches.values()
        ]
        logs = {host: cluster.log(host) for host in cluster.switches}
    assert outcome.lost == outcome.wrong_packets == outcome.lies == [], said
    assert outcome.echoes_lost == 0, said
    assert outcome.is_good
    assert all(int(packets) >= outcome.echoes for packets in tunnelled)
    assert not [log for log in logs.values() if "Traceback" in log]
    assert f"{AWAY}; generation" in logs["host1"]
    assert "connected again, and what was missed was caught up" in logs["host1"].rpartition(AWAY)[2]
    assert "every row was read again" not in logs["host1"]
    assert netns.names(f"ovsfw-{name}.") == []
    assert not (tmp_path / "c").exists()


def test_bad_names_and_taken_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cluster name"):
        Cluster("No.", tmp_path)
    with pytest.raises(ConfigError, match="a cluster is or was there"), Cluster("t", tmp_path).up():
        pass
