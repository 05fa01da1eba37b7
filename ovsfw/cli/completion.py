"""`completion`: what a shell needs to complete commands and options; made from the parser, so never behind it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import shtab

_SHELLS = ("bash", "zsh")
_COMPLETE = {"FILE": shtab.FILE, "SOURCE": shtab.FILE, "DIR": shtab.DIRECTORY}
_EPILOG = """
For yourself, in bash or zsh:
  source <(ovsfw completion bash)
For everybody, as root:
  ovsfw completion bash > /usr/share/bash-completion/completions/ovsfw
  ovsfw completion zsh > /usr/share/zsh/vendor-completions/_ovsfw
"""


def add(subparsers: Any, top: argparse.ArgumentParser) -> None:  # noqa: ANN401 - argparse's type is private
    """Register the command; `top` is what it completes."""
    about = "print what a shell needs to complete commands and options"
    command = subparsers.add_parser(
        "completion",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=" or ".join(_SHELLS))
    command.set_defaults(run=run_completion, top=top)


def run_completion(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    for _, parser in walk(args.top):
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way
            if action.metavar in _COMPLETE:
                action.complete = _COMPLETE[str(action.metavar)]  # type: ignore[attr-defined]
    print(shtab.complete(args.top, shell=args.shell))
    return 0


def walk(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all below it, each once and with its words (`ovsfw db group add`), in the order of the help."""
    yield parser.prog, parser
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                yield from walk(below)
