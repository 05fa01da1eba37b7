"""`db`: the policy database."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ovsfw.cli import db_objects, db_pki, db_server
from ovsfw.cli.db_options import add_store, add_wait, finish, remote_of
from ovsfw.cli.options import add_format
from ovsfw.errors import PolicyError
from ovsfw.policy.writing import as_document
from ovsfw.sources.file import read_document
from ovsfw.store import setup
from ovsfw.store.editing import read
from ovsfw.store.trust import trust
from ovsfw.store.waiting import Status, forget_host, status

LATE = 2
_EPILOG = """
A session:
  ovsfw db start
  ovsfw db import policy.yaml
  ovsfw db port set vm1 security_groups=web,monitored --wait=hosts
  ovsfw db status
On every host:
  ovsfw run --policy tcp:10.0.0.1:6641,tcp:10.0.0.2:6641,tcp:10.0.0.3:6641
"""


def add(family: argparse.ArgumentParser) -> None:
    """Its commands."""
    family.description = "One policy for many hosts, in an OVSDB server or a RAFT cluster of them."
    family.epilog = _EPILOG
    family.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = family.add_subparsers(title="commands", metavar="COMMAND", required=True)
    db_server.add(commands)
    for name, run, about in (
        ("import", run_import, "make the database hold exactly the policy of a file; what is equal is not touched"),
        ("export", run_export, "print the policy as a document"),
        ("show", run_show, "what is in the database, and which host has which port"),
        ("status", run_status, "hosts, their generation, lag and last word.  Exit 0 all have the policy, 2 not"),
        ("trust", run_trust, "say that this database is right, to hosts that know a newer or another one"),
        ("forget", run_forget, "remove the row of a host that is gone for good"),
        ("convert", run_convert, "bring the database to the schema of this version of ovsfw, online"),
    ):
        command = _command(commands, name, run, about)
        if name == "import":
            command.add_argument("file", metavar="FILE", help="the policy document, YAML or JSON")
            add_wait(command)
        if name == "forget":
            command.add_argument("host", metavar="HOST", help="its name in the database")
        if name in ("export", "show", "status"):
            add_format(command)
    db_objects.add(commands)
    db_pki.add(commands)


def _command(
    commands: Any,  # noqa: ANN401
    name: str,
    run: Callable[[argparse.Namespace], int],
    about: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    add_store(command)
    command.set_defaults(run=run)
    return command


def run_import(args: argparse.Namespace) -> int:
    """Judge the file first: its errors have lines."""
    found = read_document(args.file)
    if failures := found.failures(found.judge()):
        raise PolicyError(failures)
    if found.suppressions:
        print("ovsfw: warning: audit_suppressions stay in the file; the database does not keep them", file=sys.stderr)
    document = {**as_document(found.policy), "assertions": list(found.written)}
    return asyncio.run(finish(args, lambda _: document))


def run_export(args: argparse.Namespace) -> int:
    """Print the document."""
    document = asyncio.run(read(remote_of(args))).document
    if args.format == "json":
        print(json.dumps(document, indent=1))
    else:
        yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Groups and ports in a line each."""
    contents = asyncio.run(read(remote_of(args)))
    found = asyncio.run(status(remote_of(args)))
    hosts = {port: host.name for host in reversed(found.hosts) for port in host.ports}
    ready = {port for host in found.hosts for port in host.ready}
    document = contents.document
    if args.format == "json":
        top = {"generation": contents.generation, "hosts": hosts, "ready": sorted(ready)}
        print(json.dumps({**top, **document}, indent=1))
        return 0
    print(f"generation {contents.generation} of {contents.identity}")
    for name in ("tiers", "security_groups", "address_groups", "ports", "networks", "assertions"):
        print(f"{name.replace('_', ' '):<16} {len(document[name]):>7,}")
    for group in document["security_groups"]:
        print(f"group {group['id']}: {len(group.get('rules', ()))} rules")
    for port in document["ports"]:
        groups = ", ".join(port.get("security_groups", ())) or "no groups"
        late = ", where its flows are not in yet" if port["id"] in hosts and port["id"] not in ready else ""
        print(f"port {port['id']} on {hosts.get(port['id'], 'no host')}{late}: {groups}")
    return 0


def run_status(args: argparse.Namespace) -> int:
    """How the hosts are."""
    found = asyncio.run(status(remote_of(args)))
    if args.format == "json":
        print(json.dumps(_as_json(found), indent=2))
    else:
        for line in _as_text(found):
            print(line)
    return LATE if found.dead or found.late(found.generation) else 0


def _as_json(found: Status) -> dict[str, object]:
    hosts = [
        {
            "name": host.name,
            "generation": host.generation,
            "lag": found.generation - host.generation,
            "last_seen": host.last_seen,
            "alive": host.is_alive(found.now),
            "ports": list(host.ports),
            "ready": list(host.ready),
            "version": host.version,
            "problem": host.problem,
        }
        for host in found.hosts
    ]
    return {
        "identity": found.identity,
        "generation": found.generation,
        "hosts": hosts,
        "conflicts": {port: list(names) for port, names in found.conflicts.items()},
    }


def _as_text(found: Status) -> Iterator[str]:
    yield f"generation {found.generation} of {found.identity}"
    if found.hosts:
        yield f"{'host':<24} {'generation':>10} {'lag':>6} {'seen':>8} {'ports':>6}"
    for host in found.hosts:
        seen = f"{found.now - host.last_seen:.0f} s"
        lag = found.generation - host.generation
        dead = "" if host.is_alive(found.now) else "  dead"
        yield f"{host.name:<24} {host.generation:>10} {lag:>6} {seen:>8} {len(host.ports):>6}{dead}"
        for line in host.problem.splitlines():
            yield f"  {line}"
    for port, names in found.conflicts.items():
        yield f"port {port} is on several hosts: {', '.join(names)}"


def run_trust(args: argparse.Namespace) -> int:
    """Hosts take what is there."""
    print(f"every host takes the policy of {args.store} now, as generation {asyncio.run(trust(remote_of(args)))}")
    return 0


def run_forget(args: argparse.Namespace) -> int:
    """A host is gone for good."""
    there = asyncio.run(forget_host(remote_of(args), args.host))
    print(f"host {args.host} is {'forgotten' if there else 'not in the database: nothing to do'}")
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Upgrade."""
    before = asyncio.run(setup.convert(remote_of(args)))
    now = json.loads(Path(setup.schema_file()).read_text())["version"]
    print(f"schema {before}: nothing to do" if before == now else f"schema {before} is {now} now")
    return 0
