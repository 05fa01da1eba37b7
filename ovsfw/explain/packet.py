"""A captured packet as a question: who sent it, for whom it is, and what the policy says of it.  Pure."""

from __future__ import annotations

from dataclasses import replace

from ovsfw.compiler.bindings import Bindings
from ovsfw.errors import ConfigError
from ovsfw.explain.answer import Answer, Side, answer
from ovsfw.explain.frame import Frame, read_frame
from ovsfw.explain.legs import Leg, NoLegError, bound, target, way_in
from ovsfw.openflow import match as m
from ovsfw.openflow.text import format_packet
from ovsfw.policy.addresses import format_mac, link_local
from ovsfw.policy.model import Direction, Policy, Port
from ovsfw.policy.verdict import Judgement


def sender_of(policy: Policy, frame: Frame) -> Port | None:
    """The port that it came from, by its MAC; None when no port has it.

    Raises ConfigError when several have it: then the user must say which.
    """
    return _only(policy, [port for port in policy.ports.values() if frame.source_mac in port.macs], "sent it")


def receiver_of(policy: Policy, frame: Frame) -> Port | None:
    """The port that it is for.  Raises ConfigError when several ports have its MAC and none of them its address."""
    found = [port for port in policy.ports.values() if frame.destination_mac in port.macs]
    if len(found) > 1:
        found = [port for port in found if frame.destination in port.fixed_ips] or found
    return _only(policy, found, "gets it")


def _only(policy: Policy, found: list[Port], does: str) -> Port | None:
    if len(found) > 1:
        names = ", ".join(port.id for port in found)
        raise ConfigError(f"which port {does}?  {names} have its MAC address; name the one that sent it before --hex")
    return policy.ports[found[0].id] if found else None


def judge(policy: Policy, frame: Frame, sender: Port | None, receiver: Port | None) -> Answer | None:
    """What the policy says; None for what is no unicast IP, of which it says nothing."""
    connection = frame.connection(sender.id if sender else None, receiver.id if receiver else None)
    if connection is None or frame.destination_mac >> 40 & 1:
        return None
    said = answer(policy, connection)
    if sender is None or not sender.port_security or _is_own(sender, frame):
        return said
    what = f"spoof guard: {connection.source} with MAC {format_mac(frame.source_mac)} is not an address of this port"
    judgement = Judgement(allowed=False, reason=what)
    return replace(said, egress=Side(Direction.EGRESS, sender.id, judgement))


def _is_own(port: Port, frame: Frame) -> bool:
    """Whether the address and the MAC belong together; a policy knows addresses, the switch also looks at MACs."""
    source, mac = frame.source, frame.source_mac
    if source is None or source.value == 0:
        return mac in port.macs
    fitting = any(claim.mac == mac and claim.prefix.contains(source) for claim in port.claims)
    return fitting or (mac in port.macs and source == link_local(mac))


def leg(
    policy: Policy, bindings: Bindings, data: bytes, said: Answer | None, ends: tuple[Port | None, Port | None]
) -> Leg:
    """The packet itself, by the port of its sender or else an uplink; `said` None expects nothing of the switch.

    Raises NoLegError when there is no such port.
    """
    sender, receiver = (bound(bindings, port.id if port else None) for port in ends)
    if sender:
        is_here = receiver is not None and sender.vlan == receiver.vlan
        expected = None if said is None else said.allowed if is_here else said.egress.judgement.allowed
        wanted = target(policy, receiver) if receiver and is_here else 0
        return Leg("the packet itself", _comes_in_by(sender.ofport), wanted, expected, data.hex())
    if receiver:
        uplink, tag = way_in(bindings, receiver.vlan)
        expected = None if said is None else said.ingress.judgement.allowed
        tagged = _tagged(data, tag) if tag and not read_frame(data).vlan else data
        return Leg("the packet itself", _comes_in_by(uplink), target(policy, receiver), expected, tagged.hex())
    raise NoLegError("neither end is plugged into it")


def _comes_in_by(ofport: int) -> str:
    return format_packet((m.IN_PORT(ofport),))


def _tagged(data: bytes, vlan: int) -> bytes:
    """As it comes in by an uplink, if it was captured where tags are taken off."""
    return data[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + data[12:]
