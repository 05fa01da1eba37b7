"""What `ovsfw status` shows: plain data that goes over the control socket, and its text."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ovsfw import __version__
from ovsfw.compiler import Bindings
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.crowding import Crowding
from ovsfw.openflow.flow import FlowSet
from ovsfw.policy.model import Policy
from ovsfw.record import Record
from ovsfw.sources.source import SourceState
from ovsfw.supervisor import TaskState
from ovsfw.sync import Sync

Status = dict[str, Any]
_UNTIL_BACK = "Open vSwitch takes no changes, and nothing is known of ports that come and go"
_LISTED = 5
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def status(sync: Sync, source: SourceState, name: str, tasks: Mapping[str, TaskState]) -> Status:
    """Everything there is to know, as JSON has it; `name` is what the policy's source is called."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "bridge": sync.place.bridge,
        "db": sync.place.db,
        "healthy": sync.is_healthy,
        "sync": _of_record(sync.record),
        "database": {"away_since": sync.links.away_since},
        "policy": {"source": name, **asdict(source), **_of_policy(sync.policy)},
        "ports": _of_ports(sync.policy, sync.bindings),
        "flows": _of_flows(sync.reconciler.flows),
        "tasks": {name: asdict(state) for name, state in tasks.items()},
    }


def _of_record(record: Record) -> Status:
    return {**asdict(record), "state": record.state.value}


def _of_policy(policy: Policy | None) -> Status:
    """How large the policy is that the switch holds."""
    if policy is None:
        return {}
    groups = policy.security_groups.values()
    return {"ports": len(policy.ports), "security_groups": len(groups), "rules": sum(len(g.rules) for g in groups)}


def _of_ports(policy: Policy | None, bindings: Bindings | None) -> Status:
    """Of the ports that are plugged in here, by what happens to their packets."""
    plugged = [bound.port_id for bound in bindings.endpoints] if bindings else []
    known = policy.ports if policy else {}
    return {
        "plugged": len(plugged),
        "filtered": sum(name in known and known[name].port_security for name in plugged),
        "unfiltered": sorted(name for name in plugged if name in known and not known[name].port_security),
        "unknown": sorted(name for name in plugged if name not in known),
        "uplinks": len(bindings.uplinks) if bindings else 0,
    }


def _of_flows(flows: FlowSet) -> Status:
    tables = Counter(key[0] for part in flows.parts.values() for key in part)
    return {"total": len(flows), "tables": {TABLE_NAMES.get(n, str(n)): tables[n] for n in sorted(tables)}}


def of_datapath(crowding: Crowding) -> Status:
    """What the datapath has cached, as it was seen last; masks are counted at the most."""
    flows, masks = crowding.seen or (None, None)
    return {"megaflows": flows, "masks": masks, "budget": crowding.budget, "warning": crowding.warning}


def render(found: Status, now: float | None = None) -> str:
    """The text of a status, most important first."""
    return "".join(f"{line}\n" for line in _lines(found, time.time() if now is None else now))


def _lines(found: Status, now: float) -> Iterator[str]:
    sync, policy, ports = found["sync"], found["policy"], found["ports"]
    yield f"{found['bridge']}: {sync['state']} for {_age(sync['since'], now)}"
    yield from (f"  {line}" for line in sync["problem"].splitlines())
    if sync["busy"]:
        yield f"  a step is under way for {_age(sync['busy'], now)}"
    if found["database"]["away_since"]:
        yield f"ovsdb-server: away for {_age(found['database']['away_since'], now)}; until it is back {_UNTIL_BACK}"
    yield _policy_line(policy, now)
    yield from (f"  problem for {_age(policy['since'], now)}: {line}" for line in policy["problem"].splitlines())
    yield f"ports: {ports['plugged']} plugged, {ports['filtered']} filtered, {ports['uplinks']} uplinks"
    if ports["unfiltered"]:
        yield f"  not filtered, port security is off: {_some(ports['unfiltered'])}"
    if ports["unknown"]:
        yield f"  plugged but not in the policy, so pass nothing: {_some(ports['unknown'])}"
    yield f"flows: {found['flows']['total']}, {_seen(sync, now)}"
    yield from _counts(sync, now)
    yield from (f"warning: {warning}" for warning in (*sync["warnings"], found["datapath"]["warning"]) if warning)
    for name, task in found["tasks"].items():
        if task["failures"]:
            yield f"task {name}: failed {task['failures']} times, {_ago('last', task['when'], now)}: {task['problem']}"
    yield f"ovsfw {found['version']}, pid {found['pid']}, up {_age(sync['started'], now)}"


def _seen(sync: Status, now: float) -> str:
    watched = "watched by a flow monitor" if sync["watching"] else _ago("last compared", sync["agreed"], now)
    return f"{watched}, {_ago('last read as a whole', sync['dumped'], now)}"


def _policy_line(policy: Status, now: float) -> str:
    if not policy["generation"]:
        return f"policy: {policy['source']}: not known"
    since = "" if policy["problem"] else f", for {_age(policy['since'], now)}"
    size = ""
    if "ports" in policy:
        size = f": {policy['ports']} ports, {policy['security_groups']} groups, {policy['rules']} rules"
    return f"policy: {policy['source']}, generation {policy['generation']}{since}{size}"


def _counts(sync: Status, now: float) -> Iterator[str]:
    for what, count, last in (
        ("changes", sync["changes"], sync["last_change"]),
        ("repairs", sync["repairs"], sync["last_repair"]),
        ("errors", sync["failures"], sync["last_error"]),
    ):
        text = last["text"].splitlines()
        yield f"{what}: {count}" + (f", last {_age(last['when'], now)} ago: {text[0]}" if text else "")


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more


def _ago(what: str, when: float, now: float) -> str:
    return f"{what} {_age(when, now)} ago" if when else f"{what}: never"


def _age(since: float, now: float) -> str:
    """`5 s`, `12 min`, `3 h`, `20 d`: in the largest unit of which there are two, or the smallest."""
    seconds = max(0.0, now - since)
    for size, unit in _STEPS:
        if seconds >= 2 * size or size == 1:
            return f"{seconds // size:.0f} {unit}"
    raise AssertionError
