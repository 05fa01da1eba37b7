"""The names behind the numbers of a bridge, as it was last brought into step."""

from __future__ import annotations

from collections.abc import Callable

from ovsfw.compiler import Bindings
from ovsfw.compiler.identity import Identity
from ovsfw.policy.model import Policy


class Known:
    """Its state is an `Identity`, made anew only when policy or bindings are others."""

    def __init__(self, ask: Callable[[], tuple[Policy, Bindings] | None]) -> None:
        """`ask` says what the bridge was last brought into step with; None before the first time."""
        self._ask = ask
        self._made: tuple[Policy, Bindings, Identity] | None = None

    def identity(self) -> Identity | None:
        """None before the first time."""
        known = self._ask()
        if known is None:
            return None
        policy, bindings = known
        if self._made is None or self._made[0] is not policy or self._made[1] != bindings:
            self._made = (policy, bindings, Identity(policy, bindings))
        return self._made[2]
