"""The policy as Neutron's agent hands it over, piece by piece; a source like a file.

The agent's threads hand over, the loop of the sync reads: what is published is one immutable value.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ovsfw.neutron import translate
from ovsfw.neutron.log_objects import Wanted, wanted
from ovsfw.neutron.logbook import LogBook
from ovsfw.neutron.translate import Group, Json, trusted_port
from ovsfw.policy.addresses import Prefix
from ovsfw.policy.model import Policy, Port
from ovsfw.sources.source import SourceState

logger = logging.getLogger(__name__)


class AgentSource:
    """What the agent has handed over, and the policy that it last made of it.

    Until the agent has handed over ports, the policy is not known: an agent that has just started has told nothing yet,
    and its first call tells of all its ports.
    """

    def __init__(self, book: LogBook) -> None:
        """Nothing is known; `book` has what is to be logged."""
        self._book = book
        self._lock = threading.RLock()
        self._ports: dict[str, Port] = {}
        self._groups: dict[str, Group] = {}
        self._members: dict[str, tuple[Prefix, ...]] = {}
        self._has_ports = False
        self._policy: Policy | None = None
        self._told: frozenset[str] = frozenset()
        self._wrong: dict[str, str] = {}

    # --- What the agent calls ---------------------------------------------------------------------------------------

    def take_port(self, data: Json) -> None:
        """A port, or its new state; one that cannot be understood passes nothing."""
        name = str(data["device"])
        with self._lock:
            self._has_ports = True
            self._wrong.pop(name, None)
            try:
                self._ports[name] = translate.read_port(data)
            except ValueError as error:
                self._ports.pop(name, None)
                self._wrong[name] = str(error)

    def trust(self, names: Iterable[str]) -> None:
        """Ports that are not filtered."""
        with self._lock:
            self._has_ports = True
            self._ports.update((name, trusted_port(name)) for name in names)

    def drop(self, names: Iterable[str]) -> None:
        """Ports that are gone, or not to be known any more."""
        with self._lock:
            for name in names:
                self._ports.pop(name, None)
                self._wrong.pop(name, None)
            self._forget()

    def take_rules(self, group: str, rules: Iterable[Json]) -> None:
        """All rules of a group."""
        with self._lock:
            self._groups[group] = translate.read_group(group, rules)

    def take_members(self, group: str, members: Mapping[str, Iterable[Any]]) -> None:
        """All addresses of a remote group or address group; where one is wrong, none is a member."""
        with self._lock:
            self._wrong.pop(f"remote {group}", None)
            try:
                self._members[group] = translate.read_members(members)
            except ValueError as error:
                self._members[group] = ()
                self._wrong[f"remote {group}"] = f"remote group {group} has no members, because {error}"

    def publish(self) -> bool:
        """Make what has been handed over the policy; whether it is known."""
        with self._lock:
            if not self._has_ports:
                return False
            logged = wanted(self._book.logs, self._ports) if self._book.is_used else Wanted()
            policy = translate.assemble(self._ports, self._groups, self._members, logged)
            if policy != self._policy:
                self._policy = policy
            self._tell()
        return True

    def _forget(self) -> None:
        """Nobody tells the agent when a group is gone; what no port needs any more is told again before one does."""
        used = translate.assemble(self._ports, self._groups, self._members)
        self._groups = {name: group for name, group in self._groups.items() if name in used.security_groups}
        self._members = {name: inside for name, inside in self._members.items() if name in used.address_groups}

    def _tell(self) -> None:
        """Log what is wrong, once."""
        wrong = frozenset(self._wrong.values()).union(*(group.problems for group in self._groups.values()))
        for line in sorted(wrong - self._told):
            logger.error("%s", line)
        self._told = wrong

    # --- What the sync asks -----------------------------------------------------------------------------------------

    async def start(self, wake: Callable[[], None]) -> None:
        """The agent does the waking (see `engine`)."""

    def policy(self) -> Policy | None:
        """What was published last."""
        return self._policy

    def state(self) -> SourceState:
        """There is no telling when the agent is away, but it is in this process."""
        return SourceState("of the agent" if self._policy is not None else "")

    def plugged(self, port_ids: frozenset[str]) -> None:
        """The agent knows."""

    async def applied(self, policy: Policy, ports: frozenset[str]) -> None:
        """The agent waits for each change by itself."""

    def reload(self) -> None:
        """There is nothing to read."""

    async def close(self) -> None:
        """Nothing is open."""
