"""Who attacks whom in a lab: for every network and family, one machine and the one it may talk to.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ovsfw.lab.plan import Machine, Party, Plan
from ovsfw.lab.services import Probe, Service, expect, probes, services
from ovsfw.policy.addresses import Family, Prefix, parse_mac
from ovsfw.policy.model import Policy
from ovsfw.policy.verdict import TCP, UDP

SOURCE_PORT = 19999  # below what the agents use


@dataclass(frozen=True, slots=True)
class Actor:
    """A machine and its address of one family."""

    machine: Machine
    address: Prefix

    @property
    def name(self) -> str:
        """Of the machine."""
        return self.machine.name

    @property
    def mac(self) -> int:
        """Of its one device."""
        return parse_mac(self.machine.mac)


@dataclass(frozen=True, slots=True)
class Scene:
    """One network in one family.  `others` are all machines but the attacker; `guarded` those with port security.

    `service` is what the attacker may ask the victim for, None when it may nothing; `closed` what it may not, None when
    it may everything.
    """

    attacker: Actor
    victim: Actor
    outside: Machine
    others: tuple[str, ...]
    guarded: tuple[str, ...]
    service: Service | None
    closed: Service | None
    stateful: bool

    @property
    def title(self) -> str:
        """Who attacks whom."""
        family = self.attacker.address.family.ethertype
        return f"{self.attacker.name} against {self.victim.name}, {family}"


def scenes(policy: Policy, plan: Plan) -> Iterator[Scene]:
    """A scene for every network and family with an endpoint that has port security and a neighbour."""
    machines = {machine.name: machine for machine in plan.machines}
    secured = {name for name, port in policy.ports.items() if port.port_security}
    every = [probe for probe in probes(policy, plan, services(policy)) if probe.sender.port_id in secured]
    for vlan in sorted({machine.vlan for machine in plan.machines}):
        network = [machine for machine in plan.machines if machine.vlan == vlan]
        for family in Family:
            probe = _best([p for p in every if p.sender.vlan == vlan and p.source.family is family], policy)
            if probe is None:
                continue
            attacker, victim = (Actor(machines[p.machine], a) for p, a in _ends(probe))
            ports = [policy.ports[name] for name in (probe.sender.port_id, probe.receiver.port_id) if name]
            yield Scene(
                attacker,
                victim,
                next(machine for machine in network if machine.port_id is None),
                tuple(machine.name for machine in network if machine != attacker.machine),
                tuple(machine.name for machine in network if machine.port_id in secured),
                probe.service if _is_allowed(probe, policy) and probe.service.port else None,
                _closed(probe, policy),
                not any(policy.is_stateless(port) for port in ports),
            )


def _ends(probe: Probe) -> tuple[tuple[Party, Prefix], tuple[Party, Prefix]]:
    return (probe.sender, probe.source), (probe.receiver, probe.destination)


def _best(candidates: list[Probe], policy: Policy) -> Probe | None:
    """One that is allowed, TCP or UDP, between endpoints, if there is any."""

    def rank(probe: Probe) -> tuple[bool, ...]:
        both = probe.receiver.port_id is not None and policy.ports[probe.receiver.port_id].port_security
        allowed = bool(probe.service.port) and _is_allowed(probe, policy)
        return not both, not allowed, not (allowed and _closed(probe, policy)), probe.service.protocol != TCP

    return min(candidates, key=rank, default=None)


def _is_allowed(probe: Probe, policy: Policy) -> bool:
    return expect(policy, probe.connection(SOURCE_PORT)).arrives


def _closed(probe: Probe, policy: Policy) -> Service | None:
    """A service of the victim that the policy denies the attacker."""
    tried = (Service(protocol, port) for protocol in (TCP, UDP) for port in (1, 4443, 17, 65534))
    return next((service for service in tried if not _is_allowed(probe._replace(service=service), policy)), None)
