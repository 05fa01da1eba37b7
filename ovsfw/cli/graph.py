"""`ovsfw graph`: a picture of who may talk to whom."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from ovsfw.cli.options import add_policy
from ovsfw.cli.policy import policy_of
from ovsfw.drawing.dot import dot
from ovsfw.drawing.page import page
from ovsfw.drawing.svg import svg
from ovsfw.errors import ConfigError
from ovsfw.policy.graph import Graph, as_values, graph

FORMATS: dict[str, Callable[[Graph, str], str]] = {
    "svg": svg,
    "html": page,
    "json": lambda drawn, _title: json.dumps(as_values(drawn), indent=2),
    "dot": dot,
}


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = f"{command.description}  The HTML page needs nothing else; it filters and searches."
    command.epilog = "example: ovsfw graph --policy policy.yaml --output policy.html"
    add_policy(command)
    command.add_argument("--output", metavar="FILE", help="where to write (default: standard output)")
    command.add_argument(
        "--format", choices=tuple(FORMATS), help="what to draw (default: what the name of FILE ends with, or else svg)"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw."""
    chosen = args.format or _by_name(args.output)
    text = FORMATS[chosen](graph(policy_of(args)), f"{Path(args.policy).name}: who may talk to whom") + "\n"
    if args.output is None:
        print(text, end="")
        return 0
    try:
        Path(args.output).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"--output {args.output}: cannot be written: {said}") from None
    return 0


def _by_name(output: str | None) -> str:
    ending = Path(output or "").suffix.removeprefix(".").lower()
    return ending if ending in FORMATS else "svg"
