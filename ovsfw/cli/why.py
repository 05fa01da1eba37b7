"""`ovsfw why`: what the policy says of a connection, by which rule, and what the switch does with it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovsfw.apply import opened
from ovsfw.cli.options import add_bridge, add_format, add_policy
from ovsfw.cli.policy import policy_of
from ovsfw.compiler.bindings import Bindings
from ovsfw.compiler.identity import Identity
from ovsfw.errors import ConfigError, SwitchError
from ovsfw.explain import capture, packet, question
from ovsfw.explain.answer import Answer, Side, answer
from ovsfw.explain.frame import Frame, read_frame
from ovsfw.explain.legs import Leg, NoLegError, legs
from ovsfw.explain.live import Passage, passage
from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Policy, Port
from ovsfw.policy.wording import connection_text, port_text, rule_text
from ovsfw.switch.rundir import control_socket, rundir_of
from ovsfw.switch.trace import trace

DIFFERENT = 2
EPILOG = """An end is a port by its id, name, MAC or IP address, or the IP address of a machine outside the policy.
A service is tcp/443, udp/53, sctp/9000, icmp (an echo request), icmp/TYPE/CODE, proto/47 or a name like gre; icmp if
left out.

exit status: 0 answered, and the switch does what the policy says; 1 an error; 2 the switch does something else

examples:
  ovsfw why --policy policy.yaml 'vm1 -> vm2 tcp/443'
  ovsfw why --policy policy.yaml 198.51.100.7 to vm1 tcp/22
  ovsfw why --policy policy.yaml --pcap capture.pcap --packet 3"""


def add(command: argparse.ArgumentParser) -> None:
    """Its options."""
    command.epilog = EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("words", nargs="*", metavar="PORT -> PORT|IP [tcp/443]", help="who, to whom, what")
    # A word that begins like an option, and so must be one; quotes around the whole question do without it.
    command.add_argument("->", dest="towards", nargs="+", default=[], help=argparse.SUPPRESS)
    add_policy(command)
    add_bridge(command)
    command.add_argument("--offline", action="store_true", help="ask the policy only, no switch")
    command.add_argument("--source-port", type=int, default=question.SOURCE_PORT, metavar="N", help="default: 40000")
    family = command.add_mutually_exclusive_group()
    for version in Family:
        name = f"-{int(version)}"
        family.add_argument(name, dest="family", action="store_const", const=version, help=f"by {version.ethertype}")
    captured = command.add_mutually_exclusive_group()
    captured.add_argument("--hex", metavar="BYTES", help="ask about this Ethernet frame; the sender may be named first")
    captured.add_argument("--pcap", metavar="FILE", type=Path, help="ask about a packet in a capture, pcap or pcapng")
    command.add_argument("--packet", type=int, default=1, metavar="N", help="which packet of the capture (default: 1)")
    add_format(command)
    command.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: its headline, both ends (None: outside the policy), and the packet if it is about a captured one."""

    headline: str
    ends: tuple[Port | None, Port | None]
    said: Answer | None
    data: bytes = b""


def run(args: argparse.Namespace) -> int:
    """Ask and tell."""
    policy = policy_of(args)
    asked = _captured(args, policy) if args.hex or args.pcap else _in_words(args, policy)
    found, note = ((), "") if args.offline else _ask_switch(args, policy, asked)
    if args.format == "json":
        print(json.dumps(_as_json(policy, asked, found, note), indent=2))
    else:
        for line in _lines(args, policy, asked, found):
            print(line)
        if note:
            print(f"ovsfw: the switch was not asked: {note}", file=sys.stderr)
    return 0 if all(each.agrees for each in found) else DIFFERENT


def _in_words(args: argparse.Namespace, policy: Policy) -> Asked:
    words = [*args.words, *(["->", *args.towards] if args.towards else [])]
    if not words:
        raise ConfigError("ask something: ovsfw why 'PORT -> PORT|IP tcp/443', or --pcap FILE, or --hex BYTES")
    sender, receiver, service = question.split_words(words)
    ends = question.find_ends(policy, sender, receiver)
    connection = question.connection_of(ends, question.read_service(service), args.source_port, args.family)
    headline = f"{connection_text(connection)}\n  from {ends[0].name}\n  to {ends[1].name}"
    return Asked(headline, (ends[0].port, ends[1].port), answer(policy, connection))


def _captured(args: argparse.Namespace, policy: Policy) -> Asked:
    if len(args.words) > 1 or args.towards:
        raise ConfigError("with a captured packet, name at most the port that sent it")
    data = capture.from_hex(args.hex) if args.hex else capture.from_file(args.pcap, args.packet)
    try:
        frame = read_frame(data)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    named = question.find_end(policy, args.words[0]).port if args.words else None
    ends = named or packet.sender_of(policy, frame), packet.receiver_of(policy, frame)
    texts = [f"port {port_text(port)}" if port else "no port of the policy" for port in ends]
    headline = f"{frame}{_captured_note(frame)}\n  from {texts[0]}\n  to {texts[1]}"
    return Asked(headline, ends, packet.judge(policy, frame, *ends), data)


def _captured_note(frame: Frame) -> str:
    return " (not the first packet of its connection; judged as if it were)" if frame.is_answer else ""


def _ask_switch(args: argparse.Namespace, policy: Policy, asked: Asked) -> tuple[tuple[Passage, ...], str]:
    """What the switch does, or why it was not asked."""
    try:
        return asyncio.run(_passages(args, policy, asked)), ""
    except SwitchError as error:
        return (), f"{error} (--offline asks the policy only)"
    except NoLegError as error:
        return (), f"bridge {args.bridge}: {error}"


async def _passages(args: argparse.Namespace, policy: Policy, asked: Asked) -> tuple[Passage, ...]:
    async with opened(args.db, args.bridge) as held:
        identity = Identity(policy, held.bindings)
        control = control_socket(rundir=rundir_of(args.db))
        found = []
        for leg in _legs(policy, held.bindings, asked):
            said = await trace(control, args.bridge, leg.flow, leg.packet)
            found.append(passage(identity, args.bridge, leg, said))
        return tuple(found)


def _legs(policy: Policy, bindings: Bindings, asked: Asked) -> tuple[Leg, ...]:
    if asked.data:
        return (packet.leg(policy, bindings, asked.data, asked.said, asked.ends),)
    return legs(policy, bindings, asked.said) if asked.said else ()


# --- Telling ----------------------------------------------------------------------------------------------------------


def _lines(args: argparse.Namespace, policy: Policy, asked: Asked, found: tuple[Passage, ...]) -> Iterator[str]:
    yield asked.headline
    if asked.said is None:
        yield "policy: says nothing of packets that are not unicast IP; what the switch does is below"
    else:
        yield f"policy: {'ALLOWED' if asked.said.allowed else 'DENIED'}"
        for side in (asked.said.egress, asked.said.ingress):
            yield from _side_lines(policy, side)
    for each in found:
        yield from _passage_lines(args, each)


def _side_lines(policy: Policy, side: Side) -> Iterator[str]:
    judgement = side.judgement
    who = f" of {port_text(policy.ports[side.port])}" if side.port else ""
    yield f"  {side.direction.value}{who}: {_verdict_text(side)}"
    for rule in judgement.rules:
        yield f"    {rule_text(policy, rule)}  [rule {rule.id}]"
    for miss in side.near:
        yield f"    nearest: {rule_text(policy, miss.rule)}  [rule {miss.rule.id}]"
        yield f"      but {miss}"
    if not judgement.allowed and not side.near and side.port and not policy.ports[side.port].security_groups:
        yield "    it has no security groups"


def _verdict_text(side: Side) -> str:
    word = "allowed" if side.judgement.allowed else "denied"
    if side.judgement.rules:
        return f"{word} by"
    return f"{word}: {side.judgement.reason}"


def _passage_lines(args: argparse.Namespace, each: Passage) -> Iterator[str]:
    yield f"switch {args.bridge}, {each.leg.what}: {each.fate}"
    state = ""
    width = max((len(line.table) for line in each.lines), default=0)
    for line in each.lines:
        if line.state != state:
            state = line.state
            yield f"  -- out of conntrack: {state.replace('|', ', ')}"
        yield f"  {line.table:<{width}}  {line.reason}"
    if not each.agrees:
        expected = "gets through" if each.leg.expected else "does not get through"
        yield f"*** THE SWITCH DIFFERS: by the policy it {expected}.  Is the policy applied?  ovsfw verify tells."
    elif each.leg.expected is not None:
        yield "  the switch does what the policy says"


def _as_json(policy: Policy, asked: Asked, found: tuple[Passage, ...], note: str) -> dict[str, object]:
    said = asked.said
    return {
        "question": asked.headline.partition("\n")[0],
        "sender": asked.ends[0].id if asked.ends[0] else None,
        "receiver": asked.ends[1].id if asked.ends[1] else None,
        "allowed": said.allowed if said else None,
        "egress": _side_json(policy, said.egress) if said else None,
        "ingress": _side_json(policy, said.ingress) if said else None,
        "switch": [_passage_json(each) for each in found],
        "agrees": all(each.agrees for each in found) if found else None,
        "note": note,
    }


def _side_json(policy: Policy, side: Side) -> dict[str, object]:
    return {
        "port": side.port,
        "allowed": side.judgement.allowed,
        "rules": [{"id": rule.id, "text": rule_text(policy, rule)} for rule in side.judgement.rules],
        "reason": side.judgement.reason,
        "nearest": [
            {"id": miss.rule.id, "differs": {each.attribute: each.text for each in miss.differences}}
            for miss in side.near
        ],
    }


def _passage_json(each: Passage) -> dict[str, object]:
    return {
        "what": each.leg.what,
        "flow": each.leg.flow,
        "expected": each.leg.expected,
        "arrived": each.arrived,
        "agrees": each.agrees,
        "fate": each.fate,
        "tables": [{"table": line.table, "reason": line.reason, "conntrack": line.state} for line in each.lines],
    }
