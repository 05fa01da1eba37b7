"""`compile`: the flows of a policy, without a switch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import groupby

from ovsfw.cli.options import add_format, add_policy
from ovsfw.cli.policy import policy_of
from ovsfw.compiler import Binding, Bindings, Program, compile_policy
from ovsfw.compiler.bindings import Uplink
from ovsfw.compiler.pipeline import BY_NUMBER, TABLE_NAMES
from ovsfw.compiler.stats import Stats, stats
from ovsfw.errors import ConfigError
from ovsfw.openflow.text import format_flow
from ovsfw.policy.model import Policy


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.description = f"{command.description}  The text can be loaded by `ovs-ofctl -O OpenFlow14 add-flows`."
    command.epilog = (
        "Without a switch nobody knows which ports are on this host, nor their OpenFlow numbers and VLANs: every port "
        "is taken to be here, numbered from 1 in the order of port ids, and each network_id gets a VLAN from 1 up in "
        "order of name (no network_id: untagged); one more port is a trunk to the outside."
    )
    add_policy(command)
    command.add_argument(
        "--local", metavar="PATTERN", default="*", help="only ports whose id matches are on this host (default: all)"
    )
    command.add_argument("--names", action="store_true", help="print table names instead of numbers")
    command.add_argument("--stats", action="store_true", help="print how many flows there are and why, not the flows")
    add_format(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compile and print."""
    policy = policy_of(args)
    bindings = assume(policy, args.local)
    program = compile_policy(policy, bindings)
    if args.stats:
        print_stats(args, stats(policy, bindings, program))
    elif args.format == "json":
        names = TABLE_NAMES if args.names else None
        print(json.dumps([format_flow(flow, names) for flow in program.flows.flows()], indent=1))
    else:
        for line in _lines(bindings, program, names=args.names):
            print(line)
    return 0


def assume(policy: Policy, local: str = "*") -> Bindings:
    """Bindings for want of a switch.  Raises ConfigError when no port matches."""
    here = sorted(name for name in policy.ports if fnmatchcase(name, local))
    if policy.ports and not here:
        raise ConfigError(f"--local {local}: no port of the policy has such an id")
    networks = sorted({port.network_id for port in policy.ports.values() if port.network_id is not None})
    vlans: dict[str | None, int] = {name: vlan for vlan, name in enumerate(networks, 1)}
    numbered = enumerate(here, 1)
    bound = tuple(Binding(name, ofport, vlans.get(policy.ports[name].network_id, 0)) for ofport, name in numbered)
    return Bindings(bound, (Uplink(len(here) + 1),))


def _lines(bindings: Bindings, program: Program, *, names: bool) -> Iterator[str]:
    for bound in bindings.endpoints:
        vlan = f" VLAN {bound.vlan}" if bound.vlan else ""
        yield f"# port {bound.port_id}: assumed to be OpenFlow port {bound.ofport}{vlan}"
    for uplink in bindings.uplinks:
        yield f"# uplink: assumed to be OpenFlow port {uplink.ofport}"
    for number, flows in groupby(program.flows.flows(), key=lambda flow: flow.table):
        table = BY_NUMBER[number]
        yield f"# table {number} {table.name}: {table.about}"
        for flow in flows:
            yield format_flow(flow, TABLE_NAMES if names else None)


def print_stats(args: argparse.Namespace, found: Stats) -> None:
    """Counts, and the additive budget they must keep."""
    if args.format == "json":
        by_table = {f"table_{name}": count for name, count in found.by_table.items()}
        print(json.dumps({**_summary(found), **by_table}, indent=2))
        return
    for name, count in _summary(found).items():
        print(f"{name.replace('_', ' '):<24} {count:>9,}")
    print(f"{'budget kept':<24} {'yes' if found.flows <= found.budget else 'NO':>9}")
    print()
    for name, count in found.by_table.items():
        print(f"  {name:<22} {count:>9,}")


def _summary(found: Stats) -> dict[str, int]:
    return {
        "endpoints": found.endpoints,
        "rule_masks": found.rule_masks,
        "remote_addresses": found.addresses,
        "flows": found.flows,
        "budget": found.budget,
        "endpoints_x_masks": found.multiplied,
        "masks_one_sender": found.masks,
    }
