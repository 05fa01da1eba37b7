"""The reference parts of docs/pipeline.md: Markdown made from the declarations in `pipeline`, and real flows.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`, flows between `<!-- flows: TABLE WORDS -->`
and `<!-- end -->`: those of a table that have all the words, of the first policy that the page shows.  Everything else
is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ovsfw.compiler import Binding, Bindings, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.bindings import Uplink
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Place
from ovsfw.openflow.text import format_flow
from ovsfw.policy.document import parse

REGISTERS: dict[str, tuple[m.Field, str]] = {
    "ENDPOINT": (
        p.ENDPOINT,
        "the endpoint a packet is judged for: bits 0-15 its ofport, bit 16 filtered without conntrack. 0: none of ours",
    ),
    "NETWORK": (
        p.NETWORK,
        f"the VLAN (1-4095), or {p.UNTAGGED} for untagged; bits 0-15 are the conntrack zone, so it is never zone 0",
    ),
    "GROUP": (p.GROUP, "the security group whose rules are being looked up"),
    "EGRESS_RULE": (p.EGRESS_RULE, "hint of the egress rule that accepted the packet in this pass. 0: none did"),
    "INGRESS_RULE": (p.INGRESS_RULE, "the same for ingress"),
    "CLASS": (p.CLASS, "while one broadcast is judged: endpoints with the same groups, by their lowest ofport"),
    "CLASS_PAGE": (p.CLASS_PAGE, "while one broadcast is judged: which part of a long list of classes"),
    "OUTPUT_PAGE": (p.OUTPUT_PAGE, "while one packet goes out of many ports: which part of a long list of ports"),
    "GATE": (p.GATE, "bits 0-15: the conntrack zone in which the endpoint's fragments wait for each other"),
}
"""Name in `pipeline`, field, and what it holds."""

EXAMPLE_VLAN = 7
_POLICY = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PART = re.compile(r"<!-- (generated|flows): ([^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


class UnknownPartError(ValueError):
    """A page asks for something that nobody makes."""


def fill(page: str) -> str:
    """A page with its generated parts made anew.  Raises UnknownPartError, and PolicyError for its example."""
    shown = _POLICY.search(page)
    lines = example(shown[1]) if shown else []

    def make(found: re.Match[str]) -> str:
        kind, what = found[1], found[2]
        body = _generated(what) if kind == "generated" else _chosen(lines, what)
        return f"<!-- {kind}: {what} -->\n{body}<!-- end -->"

    return _PART.sub(make, page)


def example(policy_text: str) -> list[str]:
    """The flows of a policy without cookies: its ports are OpenFlow ports 1, 2, ... in a VLAN, then comes a trunk."""
    policy = parse(policy_text.encode(), "example")
    bound = tuple(Binding(name, ofport, EXAMPLE_VLAN) for ofport, name in enumerate(sorted(policy.ports), 1))
    flows = compile_policy(policy, Bindings(bound, (Uplink(len(bound) + 1),))).flows.flows()
    return [format_flow(flow, p.TABLE_NAMES).partition(",")[2] for flow in flows]


def _generated(name: str) -> str:
    if name not in PARTS:
        raise UnknownPartError(f"no part is named {name!r}; there are {', '.join(PARTS)}")
    return f"\n{PARTS[name]()}\n"


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


def tables() -> str:
    """Number, name, purpose, match fields, and where packets go on."""
    rows = []
    for table in p.TABLES:
        fields = sorted(table.matches, key=lambda field: field.order)
        onward = (other.name for other in p.TABLES if other.name in table.leads_to)
        rows.append(
            (table.number, f"`{table.name}`", table.about, _code(field.name for field in fields), _code(onward))
        )
    return _rows(("number", "table", "what it is for", "may match", "leads to"), rows)


def registers() -> str:
    """Every register in use."""
    rows = ((f"`{field.name}`", f"`{name}`", about) for name, (field, about) in REGISTERS.items())
    return _rows(("register", "name", "holds"), rows)


def connection() -> str:
    """What a committed connection carries."""
    marks = (
        ("BLOCKED", p.BLOCKED, "no longer allowed; every packet of it is dropped"),
        ("EGRESS_OK", p.EGRESS_OK, "the originator's egress rules accepted it here"),
        ("INGRESS_OK", p.INGRESS_OK, "the responder's ingress rules accepted it here"),
    )
    labels = (
        ("EGRESS_LABEL", p.EGRESS_LABEL, "hint of the egress rule that let it in"),
        ("INGRESS_LABEL", p.INGRESS_LABEL, "hint of the ingress rule that let it in"),
    )
    rows = [("`ct_mark`", str(bit.bit_length() - 1), f"`{name}`", about) for name, bit, about in marks]
    rows += [("`ct_label`", _bits(place), f"`{name}`", about) for name, place, about in labels]
    return _rows(("field", "bits", "name", "meaning"), rows)


def _bits(place: Place) -> str:
    return f"{place.first}-{place.first + place.length - 1}"


def zones() -> str:
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


def cookie() -> str:
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


def reasons() -> str:
    """Every reason a flow can have."""
    rows = ((reason.number, f"`{reason.name}`", reason.text) for reason in sorted(p.Reason, key=lambda one: one.number))
    return _rows(("number", "reason", "what people are told"), rows)


def priorities() -> str:
    """Every priority, highest first."""
    return _rows(("priority", "name"), ((int(priority), f"`{priority.name}`") for priority in p.Priority))


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part for part in (tables, registers, connection, zones, cookie, reasons, priorities)
}
"""Makes each generated part."""
