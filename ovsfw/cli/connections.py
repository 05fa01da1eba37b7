"""`connections`: the live connections of a bridge, and the rules that let them in."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator

from ovsfw import live as lives
from ovsfw.cli.options import add_bridge, add_format, add_policy
from ovsfw.cli.policy import policy_of
from ovsfw.connections import Fate
from ovsfw.errors import ConfigError
from ovsfw.explain.attempts import Attempt
from ovsfw.live import Connections, Live
from ovsfw.policy.model import Policy, Rule
from ovsfw.policy.verdict import Connection
from ovsfw.policy.wording import connection_text, port_text, rule_text

_CLEAR = "\033[H\033[2J"
_WORDS = {
    Fate.CUT: "denied, and not blocked",
    Fate.BLOCKED: "blocked",
    Fate.REVIVE: "blocked, but allowed",
    Fate.FORGET: "out of date",
    Fate.LIVE: "allowed",
    Fate.ADOPT: "let in by another filter, and allowed",
}


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = f"{command.description}  Read from conntrack; what ovsfw did not let in is only counted."
    command.epilog = (
        "Packets and bytes are there where the datapath counts them (the kernel, with net.netfilter."
        "nf_conntrack_acct=1), the time of the beginning with nf_conntrack_timestamp=1; the time until it is forgotten "
        "always."
    )
    command.add_argument("endpoint", metavar="PORT", nargs="?", help="only those of this port: its id or name")
    add_policy(command)
    add_bridge(command)
    command.add_argument("--blocked", action="store_true", help="only those whose packets are dropped")
    command.add_argument("--rule", metavar="ID", help="only those that this rule let in or decides about now")
    command.add_argument("--port", metavar="N", type=int, help="only those to this TCP, UDP or SCTP port")
    command.add_argument("--state", metavar="STATE", help="only TCP connections in this state, as ESTABLISHED")
    command.add_argument(
        "--watch", metavar="SECONDS", type=_seconds, nargs="?", const=2.0, help="again and again, every 2 s by default"
    )
    add_format(command)
    command.set_defaults(run=run)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("expected a number of seconds above 0")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Print them, once or until interrupted."""
    policy = policy_of(args)
    port_id = _port_id(policy, args.endpoint) if args.endpoint else ""
    if args.rule and not any(rule.id == args.rule for rule in policy.rules):
        raise ConfigError(f"--rule {args.rule}: the policy has no such rule")
    while True:
        found = asyncio.run(lives.look(policy, args.db, args.bridge))
        chosen = [one for one in found.live if _is_wanted(args, one, port_id)]
        _show(args, policy, chosen, found)
        sys.stdout.flush()
        if args.watch is None:
            return 0
        time.sleep(args.watch)


def _port_id(policy: Policy, wanted: str) -> str:
    """Raises ConfigError when no port, or several, are called so."""
    if wanted in policy.ports:
        return wanted
    named = [port.id for port in policy.ports.values() if port.name == wanted]
    if len(named) != 1:
        raise ConfigError(f"port {wanted}: {f'{len(named)} ports have this name' if named else 'not in the policy'}")
    return named[0]


def _is_wanted(args: argparse.Namespace, one: Live, port_id: str) -> bool:
    return (
        port_id in ("", one.sender, one.receiver)
        and (one.blocked or not args.blocked)
        and (not args.rule or args.rule in {rule.id for rule in (*one.admitted, *one.deciding)})
        and args.port in (None, one.connection.destination_port)
        and (not args.state or args.state.upper() in one.entry.state.split("/"))
    )


def _show(args: argparse.Namespace, policy: Policy, chosen: list[Live], found: Connections) -> None:
    if args.format == "json":
        value = {"connections": [as_json(one) for one in chosen], "foreign": found.foreign}
        print(json.dumps(value, indent=None if args.watch else 2))
        return
    if args.watch:
        print(f"{_CLEAR if sys.stdout.isatty() else ''}{time.strftime('%H:%M:%S')}")
    for one in chosen:
        print(as_text(policy, one))
    blocked = sum(one.blocked for one in chosen)
    print(f"{args.bridge}: {len(chosen)} of {len(found.live)} connections, {blocked} blocked", end="")
    print(f"; {found.foreign} more were not made by ovsfw" if found.foreign else "")


def as_text(policy: Policy, one: Live) -> str:
    """`tcp 10.9.0.21:40000 -> 10.9.0.41:5432  app1 -> db  ESTABLISHED  allowed  by db: tcp/5432 ...  86399 s`."""
    parts = [
        connection_text(one.connection),
        _ends(policy, one.sender, one.receiver),
        one.entry.state,
        _WORDS[one.fate],
        _by(policy, one),
    ]
    if one.counters is not None:
        parts.append(f"{one.counters.packets} packets {one.counters.bytes} bytes")
    if one.entry.began:
        parts.append(f"since {one.entry.began}")
    if one.entry.timeout is not None:
        parts.append(f"forgotten in {one.entry.timeout} s")
    return "  ".join(filter(None, parts))


def _ends(policy: Policy, *names: str | None) -> str:
    return " -> ".join(port_text(policy.ports[name]) if name else "outside" for name in names)


def _by(policy: Policy, one: Live) -> str:
    """The rules that let it in; those that would now, where these are gone from the policy."""
    return "; ".join(f"by {rule_text(policy, rule)}" for rule in (one.admitted or one.deciding))


def _connection_json(connection: Connection) -> dict[str, object]:
    return {
        "source": str(connection.source),
        "destination": str(connection.destination),
        "protocol": connection.protocol,
        "source_port": connection.source_port,
        "destination_port": connection.destination_port,
        "icmp_type": connection.icmp_type,
        "icmp_code": connection.icmp_code,
    }


def as_json(one: Live) -> dict[str, object]:
    """The same for programs."""
    entry, counters = one.entry, one.counters
    return {
        "sender": one.sender or None,
        "receiver": one.receiver or None,
        **_connection_json(one.connection),
        "zone": entry.zone,
        "state": entry.state or None,
        "fate": one.fate.name.lower(),
        "blocked": one.blocked,
        "admitted_by": _ids(one.admitted),
        "decided_by": _ids(one.deciding),
        "timeout": entry.timeout,
        "began": entry.began or None,
        "packets": counters.packets if counters else None,
        "bytes": counters.bytes if counters else None,
    }


def _ids(rules: Iterable[Rule]) -> list[str]:
    return [rule.id for rule in rules]


_PREVIEW = ((Fate.CUT, "cut"), (Fate.REVIVE, "revive"), (Fate.FORGET, "judge anew"), (Fate.ADOPT, "take over"))


def preview_lines(policy: Policy, found: Connections) -> Iterator[str]:
    """What a change does to live connections, one line each."""
    for fate, word in _PREVIEW:
        for one in found.of(fate):
            yield f"{word}: {connection_text(one.connection)}  {_ends(policy, one.sender, one.receiver)}"


def preview_json(found: Connections) -> dict[str, object]:
    """The same for programs."""
    return {word.replace(" ", "_"): [as_json(one) for one in found.of(fate)] for fate, word in _PREVIEW}


def attempt_text(policy: Policy, one: Attempt) -> str:
    """`open: tcp 10.9.0.2:40000 -> 10.9.0.1:81  vm2 -> vm1  dropped 3 times, last at 12:30:09`."""
    connection, last = one.connection, time.strftime("%H:%M:%S", time.localtime(one.last))
    times = "once" if one.times == 1 else f"{one.times} times"
    ends = _ends(policy, connection.sender, connection.receiver)
    return f"open: {connection_text(connection)}  {ends}  dropped {times}, last at {last}"


def attempt_json(one: Attempt) -> dict[str, object]:
    """The same for programs."""
    ends = {"sender": one.connection.sender, "receiver": one.connection.receiver}
    return {**ends, **_connection_json(one.connection), "dropped": one.times, "last": one.last}
