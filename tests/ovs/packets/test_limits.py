"""What Open vSwitch can take of one packet: up to the limits of ovsfw all passes, beyond them a policy is refused.

Open vSwitch gives up on a packet after 4,096 resubmits and drops it; only its log says so.
"""

from __future__ import annotations

import json

import pytest
from scapy.packet import Packet

from ovsfw.compiler.pipeline import Reason
from ovsfw.errors import PolicyError
from ovsfw.policy.document import parse
from ovsfw.policy.model import MAX_GROUPS
from tests.ovs.packets.bench import Bench, Json, egress, ingress, policy_of, vm
from tests.ovs.packets.frames import BROADCAST, tcp, udp

pytestmark = pytest.mark.ovs

VIRTUAL = "00:00:5e:00:01:01"
SHARING = 7
# With as many stateless groups as this, seven endpoints can just share a MAC address.
GROUPS_OF_SHARING = 204


def many(count: int) -> tuple[list[str], dict[str, list[Json]]]:
    """Groups of which only the last that is asked says anything about UDP 53."""
    names = [f"many{number:03}" for number in range(count)]
    groups: dict[str, list[Json]] = {name: [ingress(4, "tcp", 1 + at)] for at, name in enumerate(names)}
    groups[names[-1]] = [rule(family, "udp", 53) for rule in (ingress, egress) for family in (4, 6)]
    return names, groups


def shout(sender: str) -> Packet:
    return udp(4, sender, "vm2", to=BROADCAST, dst="255.255.255.255")


@pytest.mark.parametrize("stateless", [False, True], ids=["stateful", "stateless"])
def test_as_many_groups_as_a_port_may_have(bench: Bench, family: int, *, stateless: bool) -> None:
    """Without conntrack, both sides are judged in one pass."""
    names, groups = many(MAX_GROUPS)
    ports = (vm(1, *names), vm(2, *names))
    bench.enforce_policy(policy_of(ports, groups, stateless=names if stateless else ()))
    bench.sends("vm1", udp(family, "vm1", "vm2", dport=53)).reaches("vm2")
    bench.sends("vm1", shout("vm1")).reaches("vm2", "uplink")


def test_more_groups_are_refused() -> None:
    names, groups = many(MAX_GROUPS + 1)
    document = {"security_groups": [{"id": name, "rules": groups[name]} for name in names], "ports": [vm(1, *names)]}
    with pytest.raises(PolicyError, match=r"501 security groups; Open vSwitch can take 500 for a port"):
        parse(json.dumps(document), "limits.json")


def sharing(bench: Bench, count: int) -> None:
    """vm1 has as many stateless groups as there can be, the others share a MAC address and have `count`."""
    names, groups = many(MAX_GROUPS)
    pairs = [("10.0.0.200", VIRTUAL)]
    others = [vm(number, *names[-count:], pairs=pairs) for number in range(2, 2 + SHARING)]
    bench.enforce_policy(policy_of([vm(1, *names), *others], groups, stateless=names))


def test_as_many_groups_as_endpoints_with_one_mac_may_have(bench: Bench) -> None:
    sharing(bench, GROUPS_OF_SHARING)
    frame = udp(4, "vm1", "vm2", dst="10.0.0.200", to=VIRTUAL)
    bench.sends("vm1", frame).reaches(*(f"vm{number}" for number in range(2, 2 + SHARING)))


def test_more_groups_of_endpoints_with_one_mac_are_refused(bench: Bench) -> None:
    with pytest.raises(PolicyError, match=f"7 endpoints of this host share the MAC address {VIRTUAL}"):
        sharing(bench, GROUPS_OF_SHARING + 1)


def test_endpoints_that_share_a_mac_answer_as_the_last_who_accepted_or_by_a_rule(bench: Bench) -> None:
    """A connection names one endpoint: the other fails closed."""
    machines = [vm(number, "web", pairs=[("10.0.0.200", VIRTUAL)]) for number in (2, 3)]
    bench.enforce_policy(policy_of(machines, {"web": [ingress(4, "tcp", 80)]}))
    bench.sends("uplink", tcp(4, "uplink", "vm2", dst="10.0.0.200", to=VIRTUAL)).reaches("vm2", "vm3")
    answers = {
        name: tcp(4, name, "uplink", 30000, 80, src="10.0.0.200", mac=VIRTUAL, flags="SA", ack=1001)
        for name in ("vm2", "vm3")
    }
    bench.sends("vm2", answers["vm2"]).stopped(by=Reason.DENIED)
    bench.sends("vm3", answers["vm3"]).reaches("uplink")
    bench.change(*machines, web=[ingress(4, "tcp", 80), egress(4, "tcp")])
    bench.sends("vm2", answers["vm2"]).reaches("uplink")
