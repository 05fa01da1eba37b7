"""Neutron's log objects: which decisions they want to hear of, and the lines that tell of them.  Pure.

The shapes are those of `get_sg_log_info_for_port` (neutron/services/logapi/common/db_api.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ovsfw.policy.decisions import ACCEPTED, DROPPED
from ovsfw.policy.model import Log

_EVENTS = {"ACCEPT": Log.ACCEPTED, "DROP": Log.DROPPED, "ALL": Log.ALL}
# What a decision of the log says of itself, and the API's word for it.
_ACTIONS = {"accepted": "ACCEPT", "dropped": "DROP"}


@dataclass(frozen=True, slots=True)
class LogObject:
    """One object of the logging API; `groups` are, by port id, the security groups whose rules it asks about there."""

    id: str
    project: str
    event: Log
    groups: Mapping[str, frozenset[str]]

    def wants(self, decision: Mapping[str, object]) -> bool:
        """Whether it asked for a decision (of `explain.decisions`).

        What a port drops is of no group, so that a log of a group has all of what the ports of the group drop.
        """
        groups = self.groups.get(str(decision.get("port", "")))
        if groups is None:
            return False
        if decision["verdict"] == "dropped":
            return self.event in DROPPED
        return self.event in ACCEPTED and decision.get("security_group") in groups


class Wanted(NamedTuple):
    """What the switch must tell of: what some groups accept, what some ports drop; by their ids."""

    accepted: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()


NOTHING = Wanted()


def read_log(data: Mapping[str, Any]) -> LogObject:
    """A log object as the server tells of it.  Raises KeyError for an event that is not known."""
    groups = {
        str(port["port_id"]): frozenset(str(rule["security_group_id"]) for rule in port["security_group_rules"])
        for port in data["ports_log"]
    }
    return LogObject(str(data["id"]), str(data["project_id"]), _EVENTS[data["event"]], groups)


def wanted(logs: Iterable[LogObject], here: Collection[str]) -> Wanted:
    """What must be told so that every log object hears of its ports, of which `here` are those of this host."""
    accepted: set[str] = set()
    dropped: set[str] = set()
    for log in logs:
        for port, groups in log.groups.items():
            if port not in here:
                continue
            if log.event in ACCEPTED:
                accepted |= groups
            if log.event in DROPPED:
                dropped.add(port)
    return Wanted(frozenset(accepted), frozenset(dropped))


def lines(logs: Iterable[LogObject], decision: Mapping[str, object]) -> Iterator[str]:
    """A line for each project that wants a decision, in the form of Neutron's own driver; the packet is JSON.

    >>> log = LogObject("l1", "p1", Log.ALL, {"vm1": frozenset({"web"})})
    >>> for line in lines([log], {"verdict": "accepted", "port": "vm1", "security_group": "web", "rule": "web/any"}):
    ...     print(line)
    action=ACCEPT project_id=p1 log_resource_ids=['l1'] vm_port=vm1 pkt={"security_group": "web", "rule": "web/any"}
    """
    by_project: dict[str, list[str]] = {}
    for log in logs:
        if log.wants(decision):
            by_project.setdefault(log.project, []).append(log.id)
    packet = json.dumps({key: value for key, value in decision.items() if key not in ("verdict", "port")})
    action, port = _ACTIONS[str(decision["verdict"])], decision.get("port")
    for project, ids in sorted(by_project.items()):
        yield f"action={action} project_id={project} log_resource_ids={sorted(ids)} vm_port={port} pkt={packet}"
