"""Cases in which the filter plays together with other features of Neutron, or parts of Neutron are away."""

from __future__ import annotations

import re

from tests.neutron.bench import Bench, Machines, connects, delete, stays, tcp
from tests.neutron.lab import LabError, api, create


def log_objects(bench: Bench, on: Machines) -> None:
    """A log object gets what its port accepts and drops, with the rule that did it; and nothing once it is disabled."""
    opened = tcp(on.web, 80)
    values = {"resource_type": "security_group", "resource_id": on.web["id"], "target_id": on.server.port["id"]}
    log = create("log/log", **values, event="ALL")
    told = f"log_resource_ids=['{log['id']}'] vm_port={on.server.port['id']}"

    def logs(action: str, port: int, rule: str = "") -> bool:
        connects(on.client, on.server, port)
        found = re.findall(rf"action={action} .*{re.escape(told)} .*", _lines(bench))
        return any(rule in line for line in found)

    # The stock driver's line has no rule.
    rule = f'"rule": "{on.web["id"]}/ingress-ipv4-tcp-80"' if bench.is_ours else ""
    bench.obeys("log of what is accepted", lambda: logs("ACCEPT", 80, rule))
    bench.obeys("log of what is dropped", lambda: logs("DROP", 81))
    if on.sibling.port["id"] in _lines(bench):
        raise LabError("another port than the one that was asked about is logged")
    api("PUT", f"log/logs/{log['id']}", {"log": {"enabled": False}})

    def is_silent() -> bool:
        before = _lines(bench)
        connects(on.client, on.server, 80)
        connects(on.client, on.server, 81)
        return _lines(bench) == before

    bench.obeys("log disabled", is_silent)
    stays(is_silent, "a log object that is disabled logs")
    delete("log/log", log)
    delete("security-group-rule", opened)


def _lines(bench: Bench) -> str:
    path = bench.host.decisions
    return path.read_text() if path.exists() else ""


CASES = (log_objects,)
