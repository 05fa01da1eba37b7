"""Numbers for names, without an allocator: a digest of the name, so that they survive restarts and need no memory.

Two names with one digest are told apart by counting on in sorted order, so the numbers depend only on which names there
are.  Open vSwitch asks of a conjunction id only that it be unique within its table (ovs-fields(7)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2s

from ovsfw.compiler.pipeline import HINT_BIT, HINTS
from ovsfw.policy.model import Policy, RemoteAddressGroup, RemoteGroup, Rule


@lru_cache(maxsize=1 << 17)
def _digest(name: str) -> int:
    return int.from_bytes(blake2s(name.encode(), digest_size=4).digest(), "big") & (HINT_BIT - 1)


def number(names: Iterable[str], below: int = HINT_BIT) -> dict[str, int]:
    """A number from 1 on for every name, no two the same; all of them below a power of 2."""
    distinct = list(dict.fromkeys(names))
    numbers = {name: _digest(name) % below for name in distinct}
    taken = {0, *numbers.values()}
    if len(taken) > len(distinct):
        return numbers  # the usual case: no two alike, and none is 0
    numbers, taken = {}, {0}
    for name in sorted(distinct):
        value = _digest(name) % below
        while value in taken:
            value = (value + 1) % below
        taken.add(value)
        numbers[name] = value
    return numbers


def remote_name(remote: RemoteGroup | RemoteAddressGroup) -> str:
    """The name under which a remote set gets its conjunction id."""
    kind = "group" if isinstance(remote, RemoteGroup) else "addresses"
    return f"{kind}:{remote.id}"


def rule_hints(policy: Policy) -> Mapping[int, Rule]:
    """The rule behind each hint that flows, counters and conntrack labels carry."""
    rules = {rule.id: rule for rule in policy.rules}
    return {hint: rules[name] for name, hint in hint_numbers(policy).items()}


def hint_numbers(policy: Policy) -> dict[str, int]:
    """The hint of each rule by its id; bit 31 is set in all of them."""
    return {name: hint | HINT_BIT for name, hint in number((rule.id for rule in policy.rules), HINTS).items()}
