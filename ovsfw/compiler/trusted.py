"""Who may send DHCP replies and router advertisements to the endpoints of a network, where the policy names them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce

from ovsfw.compiler import pipeline as p
from ovsfw.compiler.packets import DHCP_REPLIES, GROUP_ADDRESSED, ROUTER_ADVERTISEMENTS, SOURCE_OF, prefix_terms, to
from ovsfw.compiler.pipeline import Priority, Reason, cookie
from ovsfw.openflow import match as m
from ovsfw.openflow.flow import Flow
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import Network

Sources = tuple[Prefix, ...]


def trusted_flows(here: m.Term, networks: Collection[Network]) -> Iterator[Flow]:
    """`here` matches the NETWORK in which ports of these networks are; what each of them says holds."""
    said = [network.dhcp_servers for network in networks if network.dhcp_servers is not None]
    if said:
        for family, message in zip(Family, DHCP_REPLIES, strict=True):
            yield from _from_these_alone(here, family, message, said)
    said = [network.routers for network in networks if network.routers is not None]
    if said:
        yield from _from_these_alone(here, Family.IPV6, ROUTER_ADVERTISEMENTS, said)


def _from_these_alone(here: m.Term, family: Family, message: m.Match, said: list[Sources]) -> Iterator[Flow]:
    why = cookie(Reason.TRUSTED, here.value)
    for prefix in _outermost(reduce(_common, said)):
        if prefix.family is family:
            match = (here, *message, *prefix_terms(SOURCE_OF[family], prefix))
            yield p.TRUSTED.flow(Priority.FIRST, (*match, GROUP_ADDRESSED), (to(p.FLOOD),), why)
            yield p.TRUSTED.flow(Priority.SECOND, match, (to(p.DELIVER),), why)
    yield p.TRUSTED.flow(Priority.THIRD, (here, *message), (), cookie(Reason.UNTRUSTED, here.value))


def _common(one: Sources, other: Sources) -> Sources:
    """The prefixes that are in both.

    >>> wide, narrow = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.0.0.1")
    >>> _common((wide,), (narrow, Prefix.parse("11.0.0.1"))) == (narrow,)
    True
    """
    found = {prefix for prefix in (*one, *other) if _covers(one, prefix) and _covers(other, prefix)}
    return tuple(sorted(found))


def _outermost(prefixes: Sources) -> Sources:
    """Without those that another contains: no packet has two flows of one rank."""
    return tuple(one for one in prefixes if not any(one != other and other.contains(one) for other in prefixes))


def _covers(prefixes: Sources, wanted: Prefix) -> bool:
    return any(prefix.contains(wanted) for prefix in prefixes)
