"""Three real servers, two real hosts with real daemons: the leader is killed, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ovsfw.errors import ConfigError
from ovsfw.lab import netns
from ovsfw.lab.cluster import Cluster
from ovsfw.lab.failover import tell

pytestmark = [pytest.mark.ovs, pytest.mark.packets]


def test_the_leader_is_killed_while_the_policy_changes(tmp_path: Path) -> None:
    name = f"t{os.getpid()}"
    cluster = Cluster(name, tmp_path / "c")
    said: list[str] = []
    with cluster.up():
        outcome = tell(cluster, said.append)
        logs = [(switch.rundir / "ovsfw.log").read_text() for switch in cluster.switches.values()]
    assert outcome.lost == outcome.wrong_packets == [], said
    assert outcome.echoes_lost == 0, said
    assert outcome.is_good
    assert not [log for log in logs if "Traceback" in log]
    assert netns.names(f"ovsfw-{name}.") == []
    assert not (tmp_path / "c").exists()


def test_bad_names_and_taken_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cluster name"):
        Cluster("No.", tmp_path)
    with pytest.raises(ConfigError, match="a cluster is or was there"), Cluster("t", tmp_path).up():
        pass
