"""The log objects of Neutron: what the switch must tell of, and who hears of a decision."""

from __future__ import annotations

import json
from typing import Any

from ovsfw.neutron.log_objects import Wanted, lines, read_log, wanted
from ovsfw.neutron.logbook import LogBook
from ovsfw.neutron.translate import assemble, read_group, read_port
from ovsfw.policy.model import Log, Policy

RULE = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}


def log(name: str = "log1", event: str = "ALL", **ports: list[str]) -> dict[str, Any]:
    """As the server tells of it: by port, the groups whose rules are meant."""
    rules = {port: [{**RULE, "security_group_id": group} for group in groups] for port, groups in ports.items()}
    told = [{"port_id": port, "security_group_rules": found} for port, found in rules.items()]
    return {"id": name, "project_id": "project", "event": event, "ports_log": told}


def decision(verdict: str = "accepted", port: str = "vm1", group: str = "web") -> dict[str, object]:
    accepted = {"rule": f"{group}/r", "security_group": group} if verdict == "accepted" else {}
    return {"verdict": verdict, "port": port, "protocol": "tcp", **accepted}


def policy_with(logged: Wanted, *, stateful: bool = True) -> Policy:
    groups = {name: read_group(name, [{**RULE, "stateful": stateful}]) for name in ("web", "app")}
    data = {"mac_address": "fa:16:3e:00:00:01", "fixed_ips": ["10.0.0.1"]}
    ports = {
        "vm1": read_port({**data, "device": "vm1", "security_groups": ["web"]}),
        "vm2": read_port({**data, "device": "vm2", "security_groups": ["web", "app"]}),
        "bare": read_port({**data, "device": "bare", "security_groups": []}),
    }
    return assemble(ports, groups, {}, logged)


def test_a_line_names_the_rule_and_who_asked() -> None:
    objects = [read_log(log(vm1=["web"])), read_log(log("log2", vm1=["web"], vm2=["web"]))]
    (line,) = lines(objects, decision())
    head, _, packet = line.partition(" pkt=")
    assert head == "action=ACCEPT project_id=project log_resource_ids=['log1', 'log2'] vm_port=vm1"
    assert json.loads(packet) == {"protocol": "tcp", "rule": "web/r", "security_group": "web"}


def test_each_project_has_its_own_line() -> None:
    other = read_log({**log("log2", vm1=["web"]), "project_id": "other"})
    assert [line.split()[1] for line in lines([read_log(log(vm1=["web"])), other], decision())] == [
        "project_id=other",
        "project_id=project",
    ]


def test_who_hears_of_what() -> None:
    accepts, drops = read_log(log(event="ACCEPT", vm1=["web"])), read_log(log(event="DROP", vm1=["web"]))
    assert accepts.wants(decision())
    assert not accepts.wants(decision(port="vm2"))
    assert not accepts.wants(decision(group="app"))
    assert not accepts.wants(decision("dropped"))
    assert drops.wants(decision("dropped"))
    assert not drops.wants(decision("dropped", port="vm2"))
    assert not drops.wants(decision())
    # A broadcast is judged for many ports at once, and names none.
    assert not read_log(log(vm1=["web"])).wants({"verdict": "accepted", "security_group": "web"})


def test_the_switch_tells_of_the_ports_of_this_host_alone() -> None:
    objects = [
        read_log(log(event="ACCEPT", vm1=["web"], elsewhere=["db"])),
        read_log(log("log2", "DROP", vm2=["app"], elsewhere=["db"])),
    ]
    assert wanted(objects, {"vm1", "vm2"}) == Wanted(frozenset({"web"}), frozenset({"vm2"}))


def test_nothing_is_logged_that_nobody_asked_for() -> None:
    policy = policy_with(Wanted())
    assert {group.log for group in policy.security_groups.values()} == {None}
    assert set(policy.security_groups) == {"web", "app"}


def test_a_group_logs_what_it_accepts() -> None:
    policy = policy_with(Wanted(accepted=frozenset({"web"})))
    assert {name: group.log for name, group in policy.security_groups.items()} == {"web": Log.ACCEPTED, "app": None}


def test_a_port_logs_what_it_drops_and_no_other_does() -> None:
    for stateful in (True, False):
        plain = policy_with(Wanted(), stateful=stateful)
        policy = policy_with(Wanted(dropped=frozenset({"vm1", "bare", "elsewhere"})), stateful=stateful)
        logs = {
            name: [group for group in port.security_groups if policy.security_groups[group].log is Log.DROPPED]
            for name, port in policy.ports.items()
        }
        assert {name: len(found) for name, found in logs.items()} == {"vm1": 1, "vm2": 0, "bare": 1}
        assert all(not policy.security_groups[found].rules for found in logs["vm1"])
        for name, port in policy.ports.items():
            assert policy.is_stateless(port) == plain.is_stateless(plain.ports[name])


def test_the_book_follows_ports_and_objects() -> None:
    book = LogBook()
    book.take([log(vm1=["web"], vm2=["web"])])
    book.take_port("vm3", [log(vm3=["web"]), log("log2", "DROP", vm3=["web"])])
    assert {each.id: set(each.groups) for each in book.logs} == {"log1": {"vm1", "vm2", "vm3"}, "log2": {"vm3"}}
    book.take_port("vm1", [])
    book.drop_port("vm2")
    book.drop(["log2", "unknown"])
    assert {each.id: set(each.groups) for each in book.logs} == {"log1": {"vm3"}}


def test_the_book_writes_for_those_who_asked() -> None:
    book = LogBook()
    written: list[str] = []
    book.write = written.append
    book.take([log(vm1=["web"])])
    book.tell(decision())
    book.tell(decision(port="vm2"))
    assert len(written) == 1
