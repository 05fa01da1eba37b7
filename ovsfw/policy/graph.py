"""A policy as a graph: who may talk to whom, as far as the rules of one end say so.

A node is a security group, an address group, a prefix, anywhere, or every port (for tiers that apply to all).  An arrow
is what the rules of one node say about another: an ingress arrow ends at the node that has the rules, an egress arrow
begins there.  Nothing here depends on the order of the document, except that tiers keep theirs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ovsfw.policy.addresses import Family
from ovsfw.policy.model import Action, Direction, Policy, RemoteAddressGroup, RemoteGroup, Rule
from ovsfw.policy.wording import remote_text, service_text


class Kind(str, Enum):
    """What a node stands for."""

    GROUP = "group"
    ADDRESSES = "addresses"
    PREFIX = "prefix"
    ANYWHERE = "anywhere"
    EVERY_PORT = "ports"


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One end of arrows; `label` is its name, and with its id where others have the same name.

    `size` is how many ports a group has, or prefixes an address group; None where nothing is counted.
    """

    id: str
    kind: Kind
    label: str
    size: int | None = None

    @property
    def about(self) -> str:
        """`security group, 3 ports`."""
        match self.kind:
            case Kind.GROUP:
                return f"security group, {_amount(self.size, 'port')}"
            case Kind.ADDRESSES:
                return f"address group, {_amount(self.size, 'prefix', 'prefixes')}"
            case Kind.PREFIX:
                return "prefix"
            case Kind.ANYWHERE:
                return "any address"
            case Kind.EVERY_PORT:
                return "every filtered port"


@dataclass(frozen=True, slots=True)
class Arrow:
    """Rules that say the same kind of thing about the same two nodes.

    `services` are theirs, each once, `tcp/443`, with `(IPv6)` where nothing says it of IPv4; `rules` are their ids,
    `texts` what each says, and who says it.
    """

    id: str
    source: str
    target: str
    direction: Direction
    action: Action
    services: tuple[str, ...]
    rules: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by id, sorted; arrows sorted by their ends."""

    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]


ANYWHERE = Node("anywhere", Kind.ANYWHERE, "anywhere")
EVERY_PORT = Node("ports", Kind.EVERY_PORT, "every port")

_Ends = tuple[str, str, Direction, Action]


class _Said(NamedTuple):
    """A rule, and what it is called: who has it, and its action in a tier."""

    rule: Rule
    by: str


def graph(policy: Policy) -> Graph:
    """The graph of a policy: every group of it, and whatever else its rules name."""
    nodes = {node.id: node for node in (*_groups(policy), *_address_groups(policy))}
    merged: dict[_Ends, list[_Said]] = defaultdict(list)
    for near, said in _placed(policy):
        rule, far = said.rule, _far(said.rule)
        for node in (near, far):
            nodes.setdefault(node.id, node)
        # A node that stands already has its right label.
        source, target = (far.id, near.id) if rule.direction is Direction.INGRESS else (near.id, far.id)
        merged[source, target, rule.direction, rule.action].append(said)
    arrows = [_arrow(policy, f"a{number}", ends, merged[ends]) for number, ends in enumerate(sorted(merged))]
    return Graph(tuple(sorted(nodes.values())), tuple(arrows))


def as_values(drawn: Graph) -> dict[str, object]:
    """The graph for JSON."""
    nodes = [{"id": node.id, "kind": node.kind.value, "label": node.label, "size": node.size} for node in drawn.nodes]
    arrows = [
        {
            "from": arrow.source,
            "to": arrow.target,
            "direction": arrow.direction.value,
            "action": arrow.action.value,
            "services": list(arrow.services),
            "rules": list(arrow.rules),
        }
        for arrow in drawn.arrows
    ]
    return {"nodes": nodes, "arrows": arrows}


def _groups(policy: Policy) -> Iterator[Node]:
    ports = Counter(name for port in policy.ports.values() for name in port.security_groups)
    found = [(group.id, group.name) for group in policy.security_groups.values()]
    for name, label in _labels(found):
        yield Node(f"group:{name}", Kind.GROUP, label, ports[name])


def _address_groups(policy: Policy) -> Iterator[Node]:
    found = [(group.id, group.name) for group in policy.address_groups.values()]
    for name, label in _labels(found):
        yield Node(f"addresses:{name}", Kind.ADDRESSES, label, len(policy.address_groups[name].prefixes))


def _labels(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The id and the label of each."""
    shown = [(identifier, name or identifier) for identifier, name in named]
    often = Counter(label for _, label in shown)
    for identifier, label in shown:
        yield identifier, label if often[label] == 1 else f"{label} ({identifier})"


def _placed(policy: Policy) -> Iterator[tuple[Node, _Said]]:
    """Every rule with the node that has it; a tier's with every group that the tier applies to."""
    by_id = {node.id: node for node in _groups(policy)}
    for group in policy.security_groups.values():
        for rule in group.rules:
            yield by_id[f"group:{group.id}"], _Said(rule, f"{group.name or group.id}:")
    for tier in policy.tiers:
        near = [EVERY_PORT] if tier.applies_to is None else [by_id[f"group:{name}"] for name in tier.applies_to]
        for rule in tier.rules:
            for node in near:
                yield node, _Said(rule, f"tier {tier.name or tier.id}: {rule.action.value}")


def _far(rule: Rule) -> Node:
    """The node that a rule is about; for groups only the id matters, for they have their nodes already."""
    match rule.remote:
        case None:
            return ANYWHERE
        case RemoteGroup():
            return Node(f"group:{rule.remote.id}", Kind.GROUP, rule.remote.id)
        case RemoteAddressGroup():
            return Node(f"addresses:{rule.remote.id}", Kind.ADDRESSES, rule.remote.id)
        case prefix if not prefix.length:
            return ANYWHERE
        case prefix:
            return Node(f"prefix:{prefix}", Kind.PREFIX, str(prefix))


def _arrow(policy: Policy, identifier: str, ends: _Ends, said: list[_Said]) -> Arrow:
    source, target, direction, action = ends
    of_ipv4 = {service_text(rule) for rule, _ in said if rule.family is Family.IPV4}
    texts = (
        f"{by} {service_text(rule)} {remote_text(policy, rule)} ({rule.family.ethertype}), rule {rule.id}"
        for rule, by in said
    )
    return Arrow(
        identifier,
        source,
        target,
        direction,
        action,
        tuple(dict.fromkeys(_service(rule, of_ipv4) for rule, _ in said)),
        tuple(rule.id for rule, _ in said),
        tuple(texts),
    )


def _service(rule: Rule, of_ipv4: set[str]) -> str:
    """The service, marked where it is IPv6's alone; a remote prefix says which IP version it is by itself."""
    text = service_text(rule)
    return text if text in of_ipv4 or (rule.remote is not None and _far(rule).kind is Kind.PREFIX) else f"{text} (IPv6)"


def _amount(count: int | None, one: str, more: str | None = None) -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
