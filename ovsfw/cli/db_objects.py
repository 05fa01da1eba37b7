"""`db group|port|address-group|rule add|set|del`: one object at a time."""

from __future__ import annotations

import argparse
import asyncio
from functools import partial
from typing import Any

from ovsfw.cli.db_options import add_store, add_wait, finish
from ovsfw.store import objects
from ovsfw.store.editing import Change

_KEYS = "keys of the policy document: KEY=VALUE; lists with commas or in YAML, null takes a key away"


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    for kind in objects.KINDS.values():
        verbs = _family(commands, kind.name)
        for verb in ("add", "set"):
            command = _verb(verbs, verb, kind.name)
            command.add_argument("name", metavar="ID")
            command.add_argument("settings", metavar="KEY=VALUE", nargs="*", help=_KEYS)
        _verb(verbs, "del", kind.name).add_argument("names", metavar="ID", nargs="+")
    verbs = _family(commands, "rule")
    command = _verb(verbs, "add", "rule")
    command.add_argument("name", metavar="GROUP", help="the id of the security group")
    command.add_argument("settings", metavar="KEY=VALUE", nargs="+", help=_KEYS)
    command = _verb(verbs, "set", "rule")
    command.add_argument("name", metavar="ID")
    command.add_argument("settings", metavar="KEY=VALUE", nargs="+", help=_KEYS)
    _verb(verbs, "del", "rule").add_argument("names", metavar="ID", nargs="+")


def _family(commands: Any, kind: str) -> Any:  # noqa: ANN401
    about = f"add, set or del: one {kind.replace('-', ' ')}"
    family = commands.add_parser(kind, help=about, description=f"{about[0].upper()}{about[1:]}.")
    return family.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _verb(verbs: Any, verb: str, kind: str) -> argparse.ArgumentParser:  # noqa: ANN401
    about = {"add": "add a new one", "set": "change some keys of one", "del": "delete some"}[verb]
    command: argparse.ArgumentParser = verbs.add_parser(verb, help=about, description=f"{about[0].upper()}{about[1:]}.")
    add_store(command)
    add_wait(command)
    command.set_defaults(run=run, kind=kind, verb=verb)
    return command


def run(args: argparse.Namespace) -> int:
    """Change it, judged with everything else that is there."""
    return asyncio.run(finish(args, _change(args)))


def _change(args: argparse.Namespace) -> Change:
    settings = objects.parse_settings(args.settings) if args.verb != "del" else {}
    if args.kind == "rule":
        match args.verb:
            case "add":
                return partial(objects.rule_added, group=args.name, settings=settings)
            case "set":
                return partial(objects.rule_changed, name=args.name, settings=settings)
            case _:
                return partial(objects.rules_deleted, names=args.names)
    kind = objects.KINDS[args.kind]
    match args.verb:
        case "add":
            return partial(objects.added, kind=kind, name=args.name, settings=settings)
        case "set":
            return partial(objects.changed, kind=kind, name=args.name, settings=settings)
        case _:
            return partial(objects.deleted, kind=kind, names=args.names)
