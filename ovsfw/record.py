"""What the daemon remembers of itself, for `ovsfw status` and the metrics.

Times are seconds of time.time(); 0 is never.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum

# Upper bounds in seconds for how long steps take; what is above the last is counted beside.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class State(Enum):
    """How the bridge is."""

    STARTING = "starting"
    WAITING = "waiting for a policy: nothing is touched"
    IN_SYNC = "in sync"
    FAILING = "not in sync"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened, and when."""

    text: str = ""
    when: float = 0.0


@dataclass(slots=True)
class Record:
    """The sync's own story.

    `watching` says that a flow monitor runs.  `agreed` is when the switch was last known to hold the policy: with a
    flow monitor it still does while the state is IN_SYNC.  `dumped` is the last whole look.  `busy` is since when a
    step is under way.  A change is a step that did something because policy or ports had changed or the switch had
    lost it; a repair undoes what somebody else did.
    """

    started: float = field(default_factory=time.time)
    state: State = State.STARTING
    since: float = field(default_factory=time.time)
    problem: str = ""
    watching: bool = False
    busy: float = 0.0
    agreed: float = 0.0
    dumped: float = 0.0
    steps: int = 0
    changes: int = 0
    flow_mods: int = 0
    repairs: int = 0
    repaired_flows: int = 0
    failures: int = 0
    connects: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    latency_sum: float = 0.0
    last_change: Note = Note()
    last_repair: Note = Note()
    last_error: Note = Note()
    warnings: tuple[str, ...] = ()

    def took(self, seconds: float) -> None:
        """Count how long a step took that changed something."""
        self.latencies[bisect_left(BUCKETS, seconds)] += 1
        self.latency_sum += seconds

    def become(self, state: State, problem: str = "") -> bool:
        """Change state; whether it, or its problem, is another one than before."""
        if state is not self.state:
            self.since = time.time()
        changed = (state, problem) != (self.state, self.problem)
        self.state, self.problem = state, problem
        return changed
