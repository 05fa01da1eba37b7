"""The text of `ovsfw status`; it is made of plain data alone, so whoever asks the daemon starts quickly."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

Status = dict[str, Any]
_UNTIL_BACK = "Open vSwitch takes no changes, and nothing is known of ports that come and go"
_LISTED = 5
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


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
