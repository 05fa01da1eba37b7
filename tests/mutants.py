"""Mutations of the compiler, each a bug that somebody could make, and proof that the tests catch every one.

    scripts/mutants              all of them, in a table
    scripts/mutants spoof        those with a word in their name

A mutant is a copy of the package with one text replaced.  It is caught when the tests that it names fail in it: law 2
(random policies and conversations), or, where law 2 sends no such packets, one that does.  All of them judge by a real
switch.  docs/mutants.md has the list.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
COPIED = ("ovsfw", "tests", "pyproject.toml")
TIMEOUT = 1800.0
EXAMPLES = "150"  # of law 2, which is enough for each of them
LAW2 = "tests/ovs/test_law2.py::test_the_flows_say_what_the_policy_says"
ONE_CONNTRACK = "tests/ovs/test_one_conntrack.py"
PACKETS = "tests/ovs/packets"
SPOOF, BROADCAST, HELPERS = (f"{PACKETS}/test_{name}.py" for name in ("spoof_guard", "broadcast", "helpers"))


class Mutation(NamedTuple):
    """One bug: in a module of the compiler, this text becomes that one; `tests` are those that must notice."""

    name: str
    module: str
    old: str
    new: str
    tests: str = LAW2


MUTATIONS = (
    # Rules
    Mutation("port ranges end one too early", "portrange", "while first <= last:", "while first < last:"),
    Mutation("port masks are twice as wide", "portrange", "ALL_ONES ^ (size - 1)", "ALL_ONES ^ (2 * size - 1)"),
    Mutation("the far end of egress is the source", "groups", "if direction is Direction.INGRESS else", "if True else"),
    Mutation("rules do not match their protocol", "groups", "(*match, m.IP_PROTO(rule.protocol))", "match"),
    Mutation("rules match for every group", "groups", "(here, *match, *remote), speak", "(*match, *remote), speak"),
    Mutation("ICMP types are not asked for", "groups", "if value is not None))", "if value is None and False))",
             f"{PACKETS}/test_rules.py::test_icmp_type"),
    Mutation("source ports are not asked for", "groups", "(*match, *source, *destination)", "(*match, *destination)"),
    Mutation("remote sets have only their group's half", "groups", "Conjunction(number, dimension, 2)",
             "Conjunction(number, 1, 2)"),
    Mutation("rules of remote sets are plain rules", "groups", "(m.CONJ_ID(of_set),)", "()"),
    Mutation("prefixes of rules are not asked for", "groups",
             "remote = prefix_terms(remote_field(rule.direction, rule.family), rule.remote)", "remote = ()"),
    Mutation("an address is in one remote set alone", "remotes", "for name in names if name in numbers})",
             "for name in names if name in numbers})[:1]"),
    Mutation("the last group alone is asked", "tiers", "groups[name] for name in sorted(names))",
             "groups[name] for name in sorted(names)[-1:])"),
    # Tiers
    Mutation("tiers after the groups come before them", "tiers", "for number in course.before:",
             "for number in course.before + course.after:"),
    Mutation("every tier is for every port", "tiers", "for tier in policy.tiers_for(names, position)",
             "for tier in policy.tiers if tier.position is position"),
    Mutation("a pass is not forgotten where the groups begin", "tiers", "if course.before:\n        yield again",
             "if course.after:\n        yield again",
             f"{PACKETS}/test_tiers.py::test_nobody_reaches_it_but_some"),
    Mutation("the rules of a tier are asked backwards", "tiers", "for rule in rules for action in (load",
             "for rule in reversed(rules) for action in (load",
             f"{PACKETS}/test_tiers.py::test_rules_are_asked_in_their_order"),
    Mutation("a denial of a tier allows", "groups", "Action.DENY: p.REFUSED,", "Action.DENY: p.HINT_BIT,"),
    Mutation("rules of a group overrule a tier", "standing", "for bit in (p.HINT_BIT, p.REFUSED, p.LEFT_TO_GROUPS):",
             "for bit in (p.HINT_BIT, p.LEFT_TO_GROUPS):",
             f"{PACKETS}/test_tiers.py::test_a_tier_denies_what_the_groups_allow"),
    # Spoof guard
    Mutation("the source MAC is not asked for", "endpoints",
             "sender = (here, m.ETH_SRC(mac), IP_OF[prefix.family],", "sender = (here, IP_OF[prefix.family],",
             f"{SPOOF}::test_wrong_source_mac"),
    Mutation("the source address is not asked for", "endpoints",
             "IP_OF[prefix.family], *prefix_terms(SOURCE_OF[prefix.family], prefix))", "IP_OF[prefix.family])"),
    Mutation("ARP may speak for others", "endpoints", "(*sender, *prefix_terms(m.ARP_SPA, prefix))", "sender",
             f"{SPOOF}::test_arp_that_lies"),
    Mutation("endpoints may be DHCP servers", "standing",
             "for match in (*DHCP_REPLIES, *(", "for match in (*DHCP_REPLIES[:0], *("),
    Mutation("router advertisements may be sent", "standing",
             "for kind in sorted(ICMPV6_ROUTER_ONLY)", "for kind in ()"),
    Mutation("anybody may send DHCP replies from outside", "trusted", "(here, *message), ()",
             "(here, *message), (to(p.DELIVER),)"),
    # State
    Mutation("invalid packets are judged like others", "standing",
             '(m.ct_state("+trk+inv"),), (), Reason.INVALID',
             '(m.ct_state("+trk+inv"),), (to(side.policy),), Reason.INVALID',
             f"{PACKETS}/test_state.py::test_tcp_flags_that_make_no_sense"),
    Mutation("blocked connections pass", "standing", "m.CT_MARK(p.BLOCKED, p.BLOCKED)), (), Reason.BLOCKED",
             "m.CT_MARK(p.BLOCKED, p.BLOCKED)), (to(side.accept),), Reason.BLOCKED",
             f"{PACKETS}/test_remark.py::test_a_connection_is_blocked_in_both_directions_and_lives_again"),
    Mutation("connections are not blocked", "standing", "p.BLOCKED.bit_length() - 1, 1), value", "20, 1), value",
             f"{PACKETS}/test_remark.py::test_a_connection_is_blocked_in_both_directions_and_lives_again"),
    Mutation("answers are for anybody", "endpoints", "m.CT_MARK(ofport << place.first, mask))",
             '*((m.CT_MARK(ofport << place.first, mask),) if flags == "-rpl" else ()))', ONE_CONNTRACK),
    Mutation("connections forget whom they are for", "remembering",
             "    Move(Place(p.RECEIVER, 0, p.TARGET.length), p.TARGET),\n", ""),
    Mutation("stateless endpoints are tracked", "standing", "stateless, (to(side.policy),), Reason.UNTRACKED",
             "stateless, (Ct(p.ZONE, table=side.state.number),), Reason.UNTRACKED"),
    Mutation("networks share their connections", "pipeline", "ZONE = Place(NETWORK, 0, 16)",
             "ZONE = Place(NETWORK, 12, 4)"),
    # Forwarding
    Mutation("ingress is not judged", "networks", "load(p.INGRESS_RULE, 0), to(p.INGRESS)",
             "load(p.INGRESS_RULE, p.HINT_BIT), to(p.INGRESS)"),
    Mutation("the way to a MAC leads out of its network", "networks", "(here, m.ETH_DST(mac))", "(m.ETH_DST(mac),)"),
    Mutation("unknown ports may send", "endpoints", "(m.IN_PORT(binding.ofport),), (), why",
             "(m.IN_PORT(binding.ofport),), (to(p.FORWARD),), why",
             f"{PACKETS}/test_unknown_and_unfiltered.py::test_an_unknown_port_sends_nothing"),
    Mutation("broadcast reaches every class", "networks", "(here, ACCEPTED[p.INGRESS_RULE]), sharing",
             "(here,), sharing", BROADCAST),
    Mutation("no fragment waits for its first", "standing", "wait = (Ct(p.GATE_ZONE, table=side.gate.number),)",
             "wait = (to(side.accept),)", f"{SPOOF}::test_fragments_smuggle_no_port"),
    # Helpers
    Mutation("data is remembered whoever sends it", "helpers", "(p.COMMIT, p.COMMITTED, (*elsewhere, known)),",
             "(p.COMMIT, p.COMMITTED, (ACCEPTED[p.INGRESS_RULE],)),", HELPERS),
    Mutation("tiers are not asked about data", "helpers", "Course(before=course.before, ", "Course(", HELPERS),
)  # fmt: skip


class Fate(Enum):
    """What became of a mutant; only CAUGHT is well."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


class Outcome(NamedTuple):
    """A mutant, what became of it, which test noticed, and how long that took in seconds."""

    mutation: Mutation
    fate: Fate
    by: str
    seconds: float


def mutated(mutation: Mutation, text: str) -> str:
    """A module with the bug in it.  Raises ValueError when its text is not there exactly once."""
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} is {text.count(mutation.old)} times in {mutation.module}")
    return text.replace(mutation.old, mutation.new)


def path_of(mutation: Mutation, root: Path) -> Path:
    """The module that a mutation changes."""
    return (root / "ovsfw" / "compiler" / f"{mutation.module}.py").resolve()


def judge(mutation: Mutation) -> Outcome:
    """Make the mutant and let its tests run in it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        place = Path(directory)
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
            if source.is_dir():
                shutil.copytree(source, place / name, ignore=ignored)
            else:
                shutil.copy(source, place / name)
        module = path_of(mutation, place)
        module.write_text(mutated(mutation, module.read_text()))
        fate, by = _try(place, mutation.tests)
    return Outcome(mutation, fate, by, time.monotonic() - began)


def _try(place: Path, tests: str) -> tuple[Fate, str]:
    """Whether the tests fail there, and which; a mutant that cannot even be loaded proves nothing."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    environment |= {
        "OVSFW_MUTANT": "1",
        "OVSFW_EXAMPLES": EXAMPLES,
        "PYTHONPATH": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return Fate.BROKEN, f"no end after {TIMEOUT:.0f} s"
    if done.returncode == 0:
        return Fate.SURVIVED, ""
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        return Fate.BROKEN, (done.stdout + done.stderr).strip().splitlines()[-1]
    return Fate.CAUGHT, failed[1].removeprefix("tests/ovs/")


def table() -> str:
    """All mutants and what catches each, as Markdown; `scripts/regen-docs` puts it into docs/mutants.md."""
    lines = ["| the bug | where | what notices |", "|---|---|---|"]
    lines += [
        f"| {each.name} | `ovsfw/compiler/{each.module}.py` | {'law 2' if each.tests == LAW2 else f'`{each.tests}`'} |"
        for each in MUTATIONS
    ]
    return "".join(f"{line}\n" for line in lines)


def report(outcomes: Iterable[Outcome]) -> int:
    """Print the table as it comes; how many were not caught."""
    missed = total = 0
    for outcome in outcomes:
        total += 1
        missed += outcome.fate is not Fate.CAUGHT
        name, fate = outcome.mutation.name, outcome.fate.value
        print(f"{fate:<8}  {name:<45}  {outcome.seconds:5.0f} s  {outcome.by}", flush=True)
    print(f"{total} mutants: {total - missed} caught, {missed} not")
    return missed


def main(words: Sequence[str]) -> int:
    """Try all mutants, or those with all of some words in their names; 1 when one was not caught."""
    chosen = [mutation for mutation in MUTATIONS if all(word in mutation.name for word in words)]
    if not chosen:
        print(f"no mutant is called {' '.join(words)!r}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return min(1, report(pool.map(judge, chosen)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
