"""The reference parts of docs/pipeline.md: Markdown made from the declarations in `pipeline`, and real flows.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.  Flows stand between
`<!-- flows: TABLE WORDS -->` and `<!-- end -->`: those of a table that have all the words, of the first policy that the
page shows.  Everything else is written by hand.

What registers and conntrack bits are for is said in `pipeline` by the strings below them, which Python does not keep.
So `fill` is given the text of that module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Place
from ovsfw.openflow.text import format_flow
from ovsfw.policy.document import parse

EXAMPLE_VLAN = 7
_POLICY = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PART = re.compile(r"<!-- (generated|flows): ([^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


class UnknownPartError(ValueError):
    """A page asks for something that nobody makes."""


def fill(page: str, pipeline: str) -> str:
    """A page with its generated parts made anew; `pipeline` is the text of pipeline.py.

    Raises UnknownPartError, and PolicyError for the example.
    """
    about = descriptions(pipeline)
    shown = _POLICY.search(page)
    lines = example(shown[1]) if shown else []

    def make(found: re.Match[str]) -> str:
        kind, what = found[1], found[2]
        body = _generated(what, about) if kind == "generated" else _chosen(lines, what)
        return f"<!-- {kind}: {what} -->\n{body}<!-- end -->"

    return _PART.sub(make, page)


def example(policy_text: str) -> list[str]:
    """The flows of a policy without cookies: its ports are OpenFlow ports 1, 2, ... in a VLAN, then comes a trunk."""
    policy = parse(policy_text.encode(), "example")
    bound = tuple(Binding(name, ofport, EXAMPLE_VLAN) for ofport, name in enumerate(sorted(policy.ports), 1))
    flows = compile_policy(policy, Bindings(bound, (Uplink(len(bound) + 1),))).flows.flows()
    return [format_flow(flow, p.TABLE_NAMES).partition(",")[2] for flow in flows]


def descriptions(source: str) -> dict[str, str]:
    r"""The string below each assignment of a module, by name, on one line.

    >>> descriptions('A = 1 << 2\n"the third bit"\nB = 2')
    {'A': 'the third bit'}
    """
    found = {}
    for assignment, below in pairwise(ast.parse(source).body):
        if isinstance(assignment, ast.Assign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(assignment.targets[0])] = " ".join(str(below.value.value).split())
    return found


def _generated(name: str, about: dict[str, str]) -> str:
    if name not in PARTS:
        raise UnknownPartError(f"no part is named {name!r}; there are {', '.join(PARTS)}")
    return f"\n{PARTS[name](about)}\n"


def _chosen(lines: list[str], what: str) -> str:
    table, *words = what.split()
    found = [line for line in lines if line.startswith(f"table={table},") and all(word in line for word in words)]
    if not found:
        raise UnknownPartError(f"no flow of the example is in table {table} and has {' and '.join(words)}")
    return "".join(("```\n", *(f"{line}\n" for line in found), "```\n"))


def _rows(heads: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def tables(_about: dict[str, str]) -> str:
    """Number, name, purpose, match fields, and where packets go on."""
    rows = []
    for table in p.TABLES:
        fields = sorted(table.matches, key=lambda field: field.order)
        onward = (other.name for other in p.TABLES if other.name in table.leads_to)
        rows.append(
            (table.number, f"`{table.name}`", table.about, _code(field.name for field in fields), _code(onward))
        )
    return _rows(("number", "table", "what it is for", "may match", "leads to"), rows)


def registers(about: dict[str, str]) -> str:
    """Every register in use."""
    named = ((name, getattr(p, name)) for name in about)
    rows = ((f"`{field.name}`", f"`{name}`", about[name]) for name, field in named if field in m.REGISTERS)
    return _rows(("register", "name", "holds"), rows)


def connection(about: dict[str, str]) -> str:
    """What a committed connection carries."""
    return _rows(("field", "bits", "name", "meaning"), _carried(about))


def _carried(about: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for name, text in about.items():
        field, colon, meaning = text.partition(": ")
        if colon and field in ("ct_mark", "ct_label"):
            yield f"`{field}`", _bits(getattr(p, name)), f"`{name}`", meaning


def _bits(place: Place | int) -> str:
    """A single bit may be declared by its value."""
    if isinstance(place, int):
        return str(place.bit_length() - 1)
    return f"{place.first}-{place.first + place.length - 1}" if place.length > 1 else str(place.first)


def zones(_about: dict[str, str]) -> str:
    """Which conntrack zones are used."""
    last_gate = p.FIRST_GATE | p.FIRST_GATE - 1
    return _rows(
        ("zone", "holds"),
        (
            ("1-4095", "the connections of the network with that VLAN"),
            (p.UNTAGGED, "the connections of the untagged network"),
            (
                f"{p.FIRST_GATE}-{last_gate}",
                f"{p.FIRST_GATE} + ofport: fragments of one endpoint, until their datagram is complete; no connections",
            ),
        ),
    )


def cookie(_about: dict[str, str]) -> str:
    """The layout of a cookie."""
    return _rows(
        ("bits", "holds"),
        (
            ("48-63", f"owner: `{p.OWNER:#06x}` is ovsfw"),
            ("40-47", f"version of the pipeline: {p.VERSION}"),
            ("32-39", "the reason, see below"),
            ("0-31", "hint: of a rule's flow the rule; of an endpoint's its ofport; of a network's its NETWORK value"),
        ),
    )


def reasons(_about: dict[str, str]) -> str:
    """Every reason a flow can have."""
    rows = ((reason.number, f"`{reason.name}`", reason.text) for reason in sorted(p.Reason, key=lambda one: one.number))
    return _rows(("number", "reason", "what people are told"), rows)


def priorities(_about: dict[str, str]) -> str:
    """Every priority, highest first."""
    return _rows(("priority", "name"), ((int(priority), f"`{priority.name}`") for priority in p.Priority))


PARTS: dict[str, Callable[[dict[str, str]], str]] = {
    part.__name__: part for part in (tables, registers, connection, zones, cookie, reasons, priorities)
}
"""Makes each generated part."""
