"""Small parts of the compiler: port masks, ids, cookies, the pipeline's own checks, statistics."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.cli.compile import assume
from ovsfw.compiler import Binding, Bindings, compile_policy, ids
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.pipeline import OWNER, TABLES, PipelineError, Priority, Reason, cookie, read_cookie
from ovsfw.compiler.portrange import masks
from ovsfw.compiler.stats import stats
from ovsfw.errors import ConfigError
from ovsfw.lab.shapes import SHAPES, shape
from ovsfw.openflow import match as m
from ovsfw.openflow.action import Resubmit
from ovsfw.openflow.flow import DuplicateFlowError
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy, PortRange

ports = st.integers(0, 65535)
# What Neutron's own driver needs for the shape `medium`.
NEUTRON_MEDIUM = 114_133


@given(ports, ports)
def test_masks_cover_a_range_exactly(one: int, other: int) -> None:
    first, last = sorted((one, other))
    covered: list[int] = []
    for value, mask in masks(PortRange(first, last)):
        size = 1 if mask is None else (~mask & 0xFFFF) + 1
        assert value % size == 0
        covered.extend(range(value, value + size))
    assert covered == list(range(first, last + 1))


def fewest(first: int, last: int) -> int:
    """The fewest aligned blocks that cover a range, by trying all ways."""
    best = {last + 1: 0}
    for start in range(last, first - 1, -1):
        sizes = (1 << bit for bit in range(9) if start % (1 << bit) == 0 and start + (1 << bit) - 1 <= last)
        best[start] = 1 + min(best[start + size] for size in sizes)
    return best[first]


@given(st.integers(0, 255), st.integers(0, 255))
def test_masks_are_as_few_as_can_be(one: int, other: int) -> None:
    first, last = sorted((one, other))
    assert len(masks(PortRange(first, last))) == fewest(first, last)


@given(st.sets(st.text(max_size=5), max_size=30))
def test_numbers_are_different_and_depend_on_nothing_but_the_names(names: set[str]) -> None:
    numbers = ids.number(sorted(names))
    assert numbers == ids.number(sorted(names, reverse=True))
    assert len(set(numbers.values())) == len(names)
    assert all(0 < value < p.HINT_BIT for value in numbers.values())


def test_names_with_one_digest_are_told_apart() -> None:
    seen: dict[int, str] = {}
    pair = None
    for index in range(400_000):
        name = f"name-{index}"
        other = seen.setdefault(ids.number([name])[name], name)
        if other != name:
            pair = (other, name)
            break
    assert pair is not None, "no two names with one digest were found"
    alone = ids.number(pair[:1])[pair[0]]
    both = ids.number(pair)
    assert both[min(pair)] == alone
    assert both[max(pair)] == alone + 1


def test_cookies_can_be_read() -> None:
    assert read_cookie(cookie(Reason.RULE, 0x80001234)) == (Reason.RULE, 0x80001234)
    assert read_cookie(0x1234) is None
    assert read_cookie(OWNER << 48 | 200 << 32) is None


def test_reasons_have_numbers_of_their_own() -> None:
    assert len({reason.number for reason in Reason}) == len(Reason)
    assert all(reason.number < 256 for reason in Reason)


def test_the_pipeline_refuses_what_it_does_not_declare() -> None:
    with pytest.raises(PipelineError, match="table classify does not match tcp_dst"):
        p.CLASSIFY.flow(Priority.MISS, (m.TCP_DST(80),), (), 0)
    with pytest.raises(PipelineError, match="table deliver does not lead to forward"):
        p.DELIVER.flow(Priority.MISS, (), (Resubmit(p.FORWARD.number),), 0)


def test_tables_lead_to_tables_that_are_declared_and_are_ours() -> None:
    names = {table.name for table in TABLES}
    assert all(table.leads_to <= names for table in TABLES)
    assert {table.number for table in TABLES} - {0} <= p.OWN_TABLES
    # Numbers that Neutron's agent cleans up on its br-int.
    assert p.OWN_TABLES.isdisjoint({*range(95)})


@pytest.mark.parametrize("name", SHAPES)
def test_flows_are_additive(name: str) -> None:
    policy = parse(json.dumps(shape(name)), name)
    bindings = assume(policy, "local-*")
    found = stats(policy, bindings, compile_policy(policy, bindings))
    assert found.flows <= found.budget
    assert sum(found.by_table.values()) == found.flows
    if name == "medium":
        assert found.flows * 10 <= NEUTRON_MEDIUM


def test_a_shape_that_is_none() -> None:
    with pytest.raises(ConfigError, match="huge"):
        shape("huge")


def test_bindings_that_cannot_be_are_a_bug_and_not_a_program() -> None:
    both = Bindings((Binding("one", 5), Binding("other", 5)))
    with pytest.raises(DuplicateFlowError):
        compile_policy(Policy(), both)


@pytest.mark.parametrize(("digest", "numbers"), [(0, (1, 2)), (7, (7, 8)), (p.HINT_BIT - 1, (p.HINT_BIT - 1, 1))])
def test_zero_is_nobody_s_number_and_counting_on_begins_anew(
    monkeypatch: pytest.MonkeyPatch, digest: int, numbers: tuple[int, int]
) -> None:
    monkeypatch.setattr(ids, "_digest", lambda _: digest)
    assert tuple(ids.number(["a", "b"]).values()) == numbers
