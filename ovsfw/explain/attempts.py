"""Connections that were tried lately and dropped, beside a policy that may allow them.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ovsfw.compiler import Bindings
from ovsfw.compiler.endpoints import network_of
from ovsfw.compiler.pipeline import EGRESS_VERDICT, INGRESS_VERDICT
from ovsfw.connections import Judge, address
from ovsfw.explain.drops import Record
from ovsfw.policy.model import Policy
from ovsfw.policy.protocols import WITH_PORTS
from ovsfw.policy.verdict import Connection, verdict

# Where rules drop, and nothing else does.
_BY_RULES = frozenset({EGRESS_VERDICT.name, INGRESS_VERDICT.name})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection; how often it was seen dropped, and when last (seconds of time.time())."""

    connection: Connection
    times: int
    last: float


def allowed_attempts(policy: Policy, bindings: Bindings, records: Iterable[Record]) -> list[Attempt]:
    """Those of some drops that the rules of a policy let pass at the endpoints of this host, the newest last.

    Who has the addresses is told by the policy.  Later fragments say nothing of the connection that they are part of.
    """
    judge = Judge(policy, bindings)
    zones = {bound.port_id: network_of(bound.vlan) for bound in bindings.endpoints}
    found: dict[Connection, Attempt] = {}
    for record in records:
        zone = zones.get(record.endpoint)
        connection = None if zone is None or record.table not in _BY_RULES else _connection(judge, zone, record)
        if connection is not None and verdict(policy, connection).allowed:
            times = found[connection].times if connection in found else 0
            found[connection] = Attempt(connection, times + 1, record.when)
    return sorted(found.values(), key=lambda attempt: attempt.last)


def _connection(judge: Judge, zone: int, record: Record) -> Connection | None:
    """Between whom a packet was, and what it began; None where it does not say."""
    told = record.details
    protocol, source, destination = (told.get(name) for name in ("protocol", "source", "destination"))
    if not isinstance(protocol, int) or source is None or destination is None:
        return None
    if protocol in WITH_PORTS and "destination_port" not in told:
        return None
    ends = address(str(source)), address(str(destination))
    sender, receiver = (judge.owner(zone, end) or None for end in ends)
    source_port, destination_port, kind, code = (
        number if isinstance(number := told.get(name), int) else 0
        for name in ("source_port", "destination_port", "icmp_type", "icmp_code")
    )
    return Connection(sender, receiver, *ends, protocol, source_port, destination_port, kind, code)
