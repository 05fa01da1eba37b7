"""`ovsfw show`: the endpoints of this host, the groups, the rules and how much each is used, and what is dropped."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ovsfw.apply import opened
from ovsfw.cli.columns import columns
from ovsfw.cli.options import add_bridge, add_format, add_policy, duration
from ovsfw.cli.policy import policy_of
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.identity import Identity
from ovsfw.errors import ConfigError, SwitchError
from ovsfw.explain.question import find_end
from ovsfw.explain.usage import Unused, Usage, dropped, is_installed, unused, usages
from ovsfw.openflow.ages import LONGEST_IDLE, Age
from ovsfw.policy.addresses import format_mac
from ovsfw.policy.model import Policy, Port
from ovsfw.policy.wording import rule_text
from ovsfw.switch import ages as counters
from ovsfw.switch.rundir import management_socket, rundir_of

WHAT = ("endpoints", "groups", "rules", "drops", "port")
EPILOG = """A hit is the first packet of a new connection; with stateless groups, any packet.  A rule counts for all
endpoints of this host that have its group.  Counters begin when a flow is made: with the rule, or when Open vSwitch
starts.

examples:
  ovsfw show rules --policy policy.yaml
  ovsfw show rules --policy policy.yaml --unused 30d
  ovsfw show port vm1 --policy policy.yaml"""
Row = Sequence[object]


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.epilog = EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("what", nargs="?", choices=WHAT, default="endpoints", help="default: endpoints")
    command.add_argument("port", nargs="?", metavar="PORT", help="with port: its id, name, MAC or IP address")
    add_policy(command)
    add_bridge(command)
    command.add_argument("--unused", type=duration, metavar="TIME", help="only rules not hit for so long, like 30d")
    add_format(command)
    command.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown: columns and rows, and what else there is to say."""

    columns: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...] = ()


def run(args: argparse.Namespace) -> int:
    """Look and print."""
    policy = policy_of(args)
    if (args.what == "port") != (args.port is not None):
        raise ConfigError("a port goes with `show port`: ovsfw show port PORT")
    if args.unused is not None and args.what != "rules":
        raise ConfigError("--unused is about rules: ovsfw show rules --unused 30d")
    bindings, ages = asyncio.run(_read(args))
    if not is_installed(ages):
        raise SwitchError(f"bridge {args.bridge} has no flows of ovsfw; apply the policy first")
    identity = Identity(policy, bindings)
    for table in _tables(args, policy, bindings, identity, ages):
        _print(args, table)
    return 0


async def _read(args: argparse.Namespace) -> tuple[Bindings, list[Age]]:
    async with opened(args.db, args.bridge) as held:
        return held.bindings, await counters.read(management_socket(args.bridge, rundir_of(args.db)))


def _tables(
    args: argparse.Namespace, policy: Policy, bindings: Bindings, identity: Identity, ages: list[Age]
) -> Iterator[Table]:
    if args.what == "endpoints":
        yield _endpoints(policy, bindings)
    elif args.what == "groups":
        yield _groups(policy, bindings, usages(policy, identity, ages))
    elif args.what == "drops":
        yield _drops(identity, ages)
    elif args.what == "rules":
        found = usages(policy, identity, ages)
        yield _rules(policy, found) if args.unused is None else _unused(policy, found, args.unused)
    else:
        yield from _port(policy, bindings, usages(policy, identity, ages), args.port)


def _endpoints(policy: Policy, bindings: Bindings) -> Table:
    rows = [
        _endpoint(policy.ports.get(bound.port_id), bound.port_id, bound.ofport, bound.vlan)
        for bound in bindings.endpoints
    ]
    return Table(("port", "name", "ofport", "vlan", "mac", "addresses", "groups"), rows)


def _endpoint(port: Port | None, name: str, ofport: int, vlan: int) -> Row:
    if port is None:
        return (name, "", ofport, vlan or "", "", "", "not in the policy: passes nothing")
    groups = " ".join(port.security_groups) if port.port_security else "port security is off: not filtered"
    addresses = " ".join(str(claim.prefix) for claim in port.claims)
    return (name, port.name, ofport, vlan or "", format_mac(port.mac), addresses, groups or "none: passes nothing new")


def _groups(policy: Policy, bindings: Bindings, found: list[Usage]) -> Table:
    here = {bound.port_id for bound in bindings.endpoints}
    hits = {usage.rule.id: usage.hits for usage in found}
    rows: list[Row] = []
    for group in policy.security_groups.values():
        members = [port.id for port in policy.ports.values() if group.id in port.security_groups]
        kind = "stateful" if group.stateful else "stateless"
        local = len(here.intersection(members))
        used = sum(hits[rule.id] for rule in group.rules)
        rows.append((group.id, group.name, kind, len(group.rules), len(members), local, used))
    return Table(("group", "name", "kind", "rules", "ports", "here", "hits"), rows)


def _rules(policy: Policy, found: Iterable[Usage]) -> Table:
    rows: list[Row] = [
        (usage.rule.id, rule_text(policy, usage.rule), *_counts(usage)) for usage in found if usage.flows
    ]
    absent = sum(1 for usage in found if not usage.flows)
    notes = (f"{absent} more rules have no flows here: no endpoint has them, or another rule says the same",)
    return Table(("rule", "says", "hits", "bytes", "last hit", "counted since"), rows, notes if absent else ())


def _counts(usage: Usage) -> Row:
    return (usage.hits, usage.bytes, _ago(usage.idle) if usage.hits else "never", f"{_time(usage.since)} ago")


def _ago(idle: int | None) -> str:
    if idle is None:
        return "not known"
    return "more than 18 h ago" if idle >= LONGEST_IDLE else f"{_time(idle)} ago"


def _time(seconds: int) -> str:
    """`12 s`, `90 min`, `30 h`, `12 d`."""
    for unit, size, least in (("d", 86400, 259200), ("h", 3600, 10800), ("min", 60, 180)):
        if seconds >= least:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _unused(policy: Policy, found: list[Usage], seconds: int) -> Table:
    """What was not hit, and for whom nobody can say so."""
    judged = [(usage, unused(usage, seconds)) for usage in found]
    rows: list[Row] = [
        (usage.rule.id, rule_text(policy, usage.rule), *_counts(usage))
        for usage, verdict in judged
        if verdict is Unused.UNUSED
    ]
    open_cases = (Unused.TOO_YOUNG, Unused.NOT_KNOWN, Unused.NOT_HERE)
    counted = {case: [usage.rule.id for usage, verdict in judged if verdict is case] for case in open_cases}
    notes = tuple(
        f"cannot tell for {len(names)} of the rules, {case.value}: {', '.join(names)}"
        for case, names in counted.items()
        if names
    )
    return Table(("rule", "says", "hits", "bytes", "last hit", "counted since"), rows, notes)


def _drops(identity: Identity, ages: list[Age]) -> Table:
    rows: list[Row] = [
        (
            line.table,
            line.drop.direction.value if line.drop.direction else "",
            line.drop.endpoint or "any",
            line.packets,
            _ago(line.idle),
            line.drop.reason.text,
        )
        for line in dropped(identity, ages)
    ]
    notes = ("endpoint any: this flow drops for all of them; `ovsfw why` says what becomes of one packet",)
    return Table(("table", "side", "endpoint", "packets", "last", "reason"), rows, notes if rows else ())


def _port(policy: Policy, bindings: Bindings, found: list[Usage], word: str) -> Iterator[Table]:
    port = find_end(policy, word).port
    if port is None:
        raise ConfigError(f"{word}: no port of the policy has this address")
    bound = [each for each in bindings.endpoints if each.port_id == port.id]
    rows = [_endpoint(port, port.id, each.ofport, each.vlan) for each in bound]
    away = () if bound else (f"port {port.id} is not plugged into this bridge",)
    yield Table(("port", "name", "ofport", "vlan", "mac", "addresses", "groups"), rows, away)
    if bound:
        mine = {rule.id for group in port.security_groups for rule in policy.security_groups[group].rules}
        yield _rules(policy, [usage for usage in found if usage.rule.id in mine])


def _print(args: argparse.Namespace, table: Table) -> None:
    if args.format == "json":
        names = [column.replace(" ", "_") for column in table.columns]
        rows = [dict(zip(names, row, strict=True)) for row in table.rows]
        print(json.dumps({"rows": rows, "notes": list(table.notes)}))
        return
    for line in columns(table.columns, table.rows):
        print(line)
    for note in table.notes:
        print(f"({note})")
