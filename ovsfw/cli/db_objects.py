"""`db group|port|address-group|tier|network|assertion|rule add|set|del`: one object at a time."""

from __future__ import annotations

import argparse
import asyncio
from functools import partial
from typing import Any

from ovsfw.cli.db_options import add_store, add_wait, finish
from ovsfw.store import objects
from ovsfw.store.editing import Change

_KEYS = "keys of the policy document: KEY=VALUE; lists with commas or in YAML, null takes a key away"
_OWNER = "the id of a security group or a tier"
_PLACE = "of a tier, or of a rule in one: before what has the place N now, counted from 0; a new one comes last"


# Kinds whose order means something.
_ORDERED = ("tier", "rule")


def add(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the commands."""
    for kind in (*objects.KINDS, "rule"):
        verbs = _family(commands, kind)
        for verb in ("add", "set"):
            command = _verb(verbs, verb, kind)
            owned = (kind, verb) == ("rule", "add")
            command.add_argument("name", metavar="OWNER" if owned else "ID", help=_OWNER if owned else None)
            command.add_argument("settings", metavar="KEY=VALUE", nargs="*", help=_KEYS)
            if kind in _ORDERED:
                command.add_argument("--place", type=_place, metavar="N", help=_PLACE)
        _verb(verbs, "del", kind).add_argument("names", metavar="ID", nargs="+")


def _place(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no place; use 0 for the first")
    return int(text)


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
    kind = objects.KINDS.get(args.kind)
    if args.verb == "del":
        return partial(objects.rules_deleted if kind is None else partial(objects.deleted, kind=kind), names=args.names)
    settings = objects.parse_settings(args.settings)
    place = {"place": args.place} if args.kind in _ORDERED else {}
    if kind is not None:
        change = objects.added if args.verb == "add" else objects.changed
        return partial(change, kind=kind, name=args.name, settings=settings, **place)
    if args.verb == "add":
        return partial(objects.rule_added, owner=args.name, settings=settings, **place)
    return partial(objects.rule_changed, name=args.name, settings=settings, **place)
