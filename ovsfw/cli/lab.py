"""`lab`: machines to try policies on, as network namespaces on an Open vSwitch of their own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ovsfw.cli import lab_cluster, lab_hosts
from ovsfw.cli.options import add_format
from ovsfw.errors import ConfigError
from ovsfw.lab import demo, selftest, show
from ovsfw.lab.machines import namespace
from ovsfw.lab.matrix import measure
from ovsfw.lab.shapes import SHAPES, shape
from ovsfw.lab.topology import DEFAULT_NAME, KERNEL, USERSPACE, Lab, down, find, make_place, up, up_on_host
from ovsfw.policy.model import Policy
from ovsfw.sources.file import read_policy

DIFFERENT = 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DESCRIPTION = (
    "Network namespaces stand for VMs, on a private Open vSwitch.  Nothing else on the machine is touched.  Needs root."
)
_EPILOG = """
A session:
  ovsfw lab up --policy shop.yaml
  ovsfw lab exec web1 ping -c1 10.9.0.41
  ovsfw apply --policy shop.yaml --db unix:/run/ovsfw-lab/db.sock
  ovsfw lab matrix
  ovsfw lab selftest
  ovsfw lab exec switch ovs-ofctl dump-flows br-int
  ovsfw lab down
"""


def add(family: argparse.ArgumentParser) -> None:
    """Its commands."""
    family.description = _DESCRIPTION
    family.epilog, family.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    commands = family.add_subparsers(title="commands", metavar="COMMAND", required=True)

    about = "start a machine for every port of a policy; there are no flows yet, so nothing passes"
    command = _command(commands, "up", run_up, about)
    _add_policy(command, "default: a shop in three tiers")
    _add_datapath(command)
    lab_hosts.add(command)

    about = "every machine tries every service of every other: the policy beside the packets.  Exit 0 agree, 1 differ"
    command = _command(commands, "matrix", run_matrix, about)
    _add_policy(command, "default: the one the lab was made from, read again")
    add_format(command)

    about = "try to get round the filter with forged frames from inside the machines.  Exit 0 all stopped, 1 not"
    command = _command(commands, "selftest", run_selftest, about)
    _add_policy(command, "default: the one the lab was made from, read again")
    add_format(command)

    command = _command(commands, "exec", run_exec, "run a command in a machine; `switch` is where Open vSwitch is")
    command.add_argument("machine", metavar="MACHINE", help="a machine of the lab, outside, or switch")
    command.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="default: a shell")

    about = "all of it in a minute: up, apply, matrix, take one rule away, matrix, down"
    command = _command(commands, "demo", run_demo, about, name="demo")
    _add_policy(command, "default: a shop in three tiers")
    _add_datapath(command)

    about = "print a policy of known size, to see how flows grow (ports named local-* are meant to be on this host)"
    command = commands.add_parser("shape", help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.add_argument("shape", metavar="SHAPE", choices=sorted(SHAPES), help=f"one of {', '.join(SHAPES)}")
    command.set_defaults(run=run_shape)

    lab_cluster.add(commands)

    _command(commands, "down", run_down, "remove the lab, or what is left of one; nothing to remove is fine")


def run_shape(args: argparse.Namespace) -> int:
    """Print a generated policy."""
    print(json.dumps(shape(args.shape), indent=1))
    return 0


def _command(
    commands: Any,  # noqa: ANN401
    verb: str,
    run: Callable[[argparse.Namespace], int],
    about: str,
    name: str = DEFAULT_NAME,
) -> argparse.ArgumentParser:
    """A command with the options that say which lab."""
    command: argparse.ArgumentParser = commands.add_parser(
        verb, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    command.add_argument("--name", default=name, metavar="NAME", help="of the lab (default: %(default)s)")
    command.add_argument("--directory", metavar="DIR", help="of the lab and its switch (default: /run/ovsfw-NAME)")
    command.set_defaults(run=run)
    return command


def _add_policy(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--policy", metavar="FILE", help=f"the policy document, YAML or JSON ({default})")


def _add_datapath(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--datapath",
        choices=(USERSPACE, KERNEL),
        default=USERSPACE,
        help="of the lab's bridge: in userspace, or the kernel's, which must have the module openvswitch "
        "(default: %(default)s)",
    )


def run_up(args: argparse.Namespace) -> int:
    """Start a lab."""
    place = make_place(args.name, args.directory)
    file = Path(args.policy or demo.POLICY).absolute()
    policy = read_policy(file)
    ends = lab_hosts.ends(args)
    with _signals_raise():
        if ends:
            lab = up_on_host(policy, place, str(file), ends, args.machines.split(","))
        else:
            lab = up(policy, place, str(file), args.datapath)
    where = f", of them {len(lab.here.machines)} machines on this host" if ends else ""
    print(f"lab {place.name!r} is up: {len(policy.ports)} machines, and the outside{where}")
    for machine in lab.here.machines:
        addresses = " ".join(address.split("/")[0] for address in machine.addresses)
        print(f"  {machine.name:<15} {namespace(place, machine.name):<34} {addresses}")
    print(f"next: ovsfw apply --policy {file} --db {lab.ovs.db}")
    return 0


def run_matrix(args: argparse.Namespace) -> int:
    """Probe a lab."""
    lab, policy = _lab_and_policy(args)
    matrix = asyncio.run(measure(lab, policy))
    if args.format == "json":
        print(json.dumps(show.as_json(matrix), indent=2))
    else:
        for line in show.as_text(matrix, colour=sys.stdout.isatty()):
            print(line)
    return DIFFERENT if matrix.differences else 0


def run_selftest(args: argparse.Namespace) -> int:
    """Attack a lab."""
    lab, policy = _lab_and_policy(args)
    if lab.share and not any(machine.port_id is None for machine in lab.here.machines):
        raise ConfigError("the selftest needs the outside, which is on the other host: run it there")
    outcomes = selftest.selftest(lab, policy)
    if args.format == "json":
        print(json.dumps(selftest.as_json(outcomes), indent=2))
    else:
        for line in selftest.as_text(outcomes):
            print(line)
    return 0 if all(outcome.is_right for outcome in outcomes) else DIFFERENT


def _lab_and_policy(args: argparse.Namespace) -> tuple[Lab, Policy]:
    """The lab that is meant, and the policy it was made from, or the given one."""
    lab = find(make_place(args.name, args.directory))
    if not args.policy and not lab.policy_file:
        raise ConfigError("the lab was not made from a file: say --policy FILE")
    return lab, read_policy(Path(args.policy or lab.policy_file))


def run_exec(args: argparse.Namespace) -> int:
    """Become the command."""
    lab = find(make_place(args.name, args.directory))
    known = ["switch", *(machine.name for machine in lab.here.machines)]
    if args.machine not in known:
        raise ConfigError(f"no machine {args.machine!r} in the lab; there are: {' '.join(known)}")
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    inside = ["ip", "netns", "exec", namespace(lab.place, args.machine)]
    on_host = lab.share is not None and args.machine == "switch"
    command = [*([] if on_host else inside), *(words or [os.environ.get("SHELL", "sh")])]
    environment = lab.ovs.environment if args.machine == "switch" else os.environ
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]}: {error.strerror}") from None


def run_demo(args: argparse.Namespace) -> int:
    """Show it all."""
    place = make_place(args.name, args.directory)
    policy = read_policy(Path(args.policy or demo.POLICY))
    with _signals_raise():
        return 0 if demo.show_demo(policy, place, sys.stdout, args.datapath) else DIFFERENT


def run_down(args: argparse.Namespace) -> int:
    """Remove a lab."""
    place = make_place(args.name, args.directory)
    with _signals_raise():
        print(f"lab {place.name!r} is {'down' if down(place) else 'not there: nothing to remove'}")
    return 0


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the first signal that asks us to end become KeyboardInterrupt, so that everything is cleaned up.

    Further ones are ignored: cleaning up takes a moment only, and must not be cut short.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for signum in _ENDING:
            # Not SIG_IGN: that would be inherited by what is started, which then could not be ended.
            signal.signal(signum, lambda _number, _frame: None)
        print(f"ovsfw: {signal.Signals(number).name}: cleaning up", file=sys.stderr)
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, interrupt) for signum in _ENDING}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
