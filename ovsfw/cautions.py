"""What the operator should know though the bridge is in step: what weakens the filter, and is not ovsfw's to change."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ovsfw.apply import is_before_us
from ovsfw.compiler import Hook
from ovsfw.compiler.pipeline import TABLE_NAMES, is_ours
from ovsfw.openflow.flow import Flow, FlowSet, Key
from ovsfw.openflow.monitor import EventKind
from ovsfw.openflow.text import format_flow
from ovsfw.policy.decisions import logs_anything
from ovsfw.policy.model import Policy

_OUTRANKED = "a flow of another program comes before ovsfw's; what it matches is not filtered: {flow}"
_NOT_SECURE = (
    "the bridge's fail_mode is not secure: when Open vSwitch restarts, packets pass unfiltered until the flows are "
    "back; run: ovs-vsctl set-fail-mode {bridge} secure (or ovsfw run --set-fail-mode)"
)
_NOT_LOGGED = "the policy says `log`, and nothing is logged; start the daemon with --log-decisions FILE"


class Cautions:
    """Its state is the flows of others that come before ours, and whether the policy wants a log that nobody writes."""

    def __init__(self, hook: Hook, *, logs: bool) -> None:
        """`logs` says that decisions are logged."""
        self._hook, self._logs = hook, logs
        self._before: dict[Key, Flow] = {}
        self._log_is_missing = False

    def read(self, others: Iterable[Flow]) -> None:
        """All flows of others, as they are on the switch now."""
        self._before = {flow.key: flow for flow in others if self._is_before_us(flow)}

    def observe(self, kind: EventKind, flow: Flow) -> bool:
        """What was done to a flow; whether it matters here."""
        if not self._is_before_us(flow):
            return False
        self._before.pop(flow.key, None)
        if kind is EventKind.PRESENT:
            self._before[flow.key] = flow
        return True

    def enforced(self, policy: Policy) -> None:
        """Another policy is in force."""
        self._log_is_missing = not self._logs and logs_anything(policy)

    def found(self, bridge: str, fail_mode: str, ours: FlowSet) -> tuple[str, ...]:
        """What there is to say now, one line each."""
        return (
            *((_NOT_SECURE.format(bridge=bridge),) if fail_mode != "secure" else ()),
            *((_NOT_LOGGED,) if self._log_is_missing else ()),
            *(_OUTRANKED.format(flow=format_flow(flow, TABLE_NAMES)) for flow in self._outranking(ours)),
        )

    def _outranking(self, ours: FlowSet) -> Collection[Flow]:
        """A foreign flow with the key of one of ours has been replaced by it."""
        self._before = {key: flow for key, flow in self._before.items() if key not in ours}
        return self._before.values()

    def _is_before_us(self, flow: Flow) -> bool:
        """Inside another program's pipeline, what comes before is its business."""
        return not self._hook.inside and is_before_us(flow) and not is_ours(flow)
