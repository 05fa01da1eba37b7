"""What `ovsfw status` shows, as plain data that goes over the control socket."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from ovsfw import __version__
from ovsfw.compiler import Bindings
from ovsfw.compiler.pipeline import TABLE_NAMES
from ovsfw.crowding import Crowding
from ovsfw.openflow.flow import FlowSet
from ovsfw.policy.model import Policy
from ovsfw.record import Record
from ovsfw.sources.source import SourceState
from ovsfw.status_text import Status
from ovsfw.supervisor import TaskState
from ovsfw.sync import Sync


def status(sync: Sync, source: SourceState, name: str, tasks: Mapping[str, TaskState]) -> Status:
    """Everything there is to know, as JSON has it; `name` is what the policy's source is called."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "bridge": sync.place.bridge,
        "db": sync.place.db,
        "healthy": sync.is_healthy,
        "sync": _of_record(sync.record),
        "database": {"away_since": sync.links.away_since},
        "policy": {"source": name, **asdict(source), **_of_policy(sync.policy)},
        "ports": _of_ports(sync.policy, sync.bindings),
        "flows": _of_flows(sync.reconciler.flows),
        "tasks": {name: asdict(state) for name, state in tasks.items()},
    }


def _of_record(record: Record) -> Status:
    return {**asdict(record), "state": record.state.value}


def _of_policy(policy: Policy | None) -> Status:
    """How large the policy is that the switch holds."""
    if policy is None:
        return {}
    groups = policy.security_groups.values()
    return {"ports": len(policy.ports), "security_groups": len(groups), "rules": sum(len(g.rules) for g in groups)}


def _of_ports(policy: Policy | None, bindings: Bindings | None) -> Status:
    """Of the ports that are plugged in here, by what happens to their packets."""
    plugged = [bound.port_id for bound in bindings.endpoints] if bindings else []
    known = policy.ports if policy else {}
    return {
        "plugged": len(plugged),
        "filtered": sum(name in known and known[name].port_security for name in plugged),
        "unfiltered": sorted(name for name in plugged if name in known and not known[name].port_security),
        "unknown": sorted(name for name in plugged if name not in known),
        "uplinks": len(bindings.uplinks) if bindings else 0,
    }


def _of_flows(flows: FlowSet) -> Status:
    tables = Counter(key[0] for part in flows.parts.values() for key in part)
    return {"total": len(flows), "tables": {TABLE_NAMES.get(n, str(n)): tables[n] for n in sorted(tables)}}


def of_datapath(crowding: Crowding) -> Status:
    """What the datapath has cached, as it was seen last; masks are counted at the most."""
    flows, masks = crowding.seen or (None, None)
    return {"megaflows": flows, "masks": masks, "budget": crowding.budget, "warning": crowding.warning}
