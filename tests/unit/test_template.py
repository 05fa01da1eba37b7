"""Templates: what is filled in gives the very bytes that the codec writes, for whatever numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsfw.compiler import Binding
from ovsfw.compiler import pipeline as p
from ovsfw.compiler.endpoints import Shape, endpoint_by_numbers, endpoint_flows, measured
from ovsfw.compiler.groups import RuleShape, measured_rule, rule_by_numbers, rules_flows
from ovsfw.compiler.ids import remote_name
from ovsfw.compiler.template import Build, Numbers, Template, filling
from ovsfw.compiler.tiers import Course, Helped
from ovsfw.openflow import match as m
from ovsfw.openflow.flow import Flow, flow
from ovsfw.policy.addresses import Family, Prefix
from ovsfw.policy.model import (
    Action,
    Claim,
    Direction,
    Helper,
    Port,
    PortRange,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from ovsfw.policy.verdict import TCP
from tests import strategies

LARGEST_REMEMBERED = (1 << 15) - 1
thirty_two_bits = st.integers(1, (1 << 32) - 1)
macs = st.integers(0, (1 << 48) - 1)
ports = st.integers(0, (1 << 16) - 1)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    family = draw(st.sampled_from(Family))
    length = draw(st.one_of(st.just(family.bits), st.integers(0, family.bits)))
    return Prefix(family, draw(_value(family, length)), length)


def _value(family: Family, length: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << length) - 1).map(lambda value: value << family.bits - length)


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Binding, Port, Course]:
    claims = st.builds(Claim, macs, prefixes())
    pairs = draw(st.lists(claims, max_size=2, unique=True))
    port = Port("a", draw(macs), tuple(draw(st.sets(prefixes(), max_size=2))), tuple(sorted(pairs)))
    some = st.lists(thirty_two_bits, max_size=2).map(tuple)
    helped = st.lists(
        st.builds(Helped, thirty_two_bits, st.sampled_from(Direction), st.sampled_from(Family)), max_size=2
    )
    course = Course(draw(some), tuple(draw(helped)), draw(some), draw(some))
    return Binding("a", draw(st.integers(1, (1 << 16) - 1)), draw(st.integers(0, 4095))), port, course


@st.composite
def others(draw: st.DrawFn, shape: Shape) -> Numbers:
    """Numbers of another endpoint of a shape."""
    ofports = (1, LARGEST_REMEMBERED) if shape.is_remembered else (LARGEST_REMEMBERED + 1, (1 << 16) - 1)
    addresses = [draw(_value(family, length)) for _, family, length in shape.claims]
    asked = [draw(thirty_two_bits) for _ in range(sum(shape.course) + len(shape.helped))]
    own = [draw(macs) for _ in range(shape.macs)]
    return (draw(st.integers(*ofports)), draw(st.integers(1, 4096)), *own, *addresses, *asked)


@settings(max_examples=40)
@given(endpoints(), st.booleans(), st.booleans(), st.data())
def test_endpoints_of_one_shape_differ_in_numbers_alone(
    endpoint: tuple[Binding, Port, Course],
    stateless: bool,  # noqa: FBT001
    logs_drops: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    shape, example = measured(*endpoint, stateless=stateless, logs_drops=logs_drops)
    build = partial(endpoint_by_numbers, shape)
    filled = filling(build, example)
    assert filled is not None
    other = data.draw(others(shape))
    assert list(filled(example)) == list(build(example))
    assert list(filled(other)) == list(build(other))


@st.composite
def plain_rules(draw: st.DrawFn) -> Rule:
    """With no more than one port each way."""
    rule = draw(strategies.rules("a", ["b"], ["c"]))
    helper = None
    if rule.ports is not None:
        one, source = draw(ports), draw(st.none() | ports)
        rule = replace(
            rule, ports=PortRange(one, one), source_ports=None if source is None else PortRange(source, source)
        )
        helper = draw(st.none() | st.sampled_from(Helper))
    return replace(rule, action=draw(st.sampled_from(Action)), helper=helper)


@st.composite
def other_rules(draw: st.DrawFn, shape: RuleShape) -> Numbers:
    """Numbers of another rule of a shape."""
    number = draw(thirty_two_bits) & ~p.DATA | shape.bits[0]
    hint = draw(st.integers(1, p.HINTS - 1)) | shape.bits[1]
    is_prefix = shape.remote is not None and shape.remote >= 0
    far = draw(_value(shape.family, shape.remote)) if is_prefix and shape.remote is not None else draw(thirty_two_bits)
    icmp = [draw(st.integers(0, 255)) for has in shape.has[:2] if has]
    return (number, hint, far, *icmp, *[draw(ports) for has in shape.has[2:] if has])


@given(plain_rules(), thirty_two_bits, thirty_two_bits, st.booleans(), st.data())
def test_rules_of_one_shape_differ_in_numbers_alone(
    rule: Rule,
    number: int,
    hint: int,
    log: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    of_set = data.draw(thirty_two_bits) if isinstance(rule.remote, RemoteGroup | RemoteAddressGroup) else 0
    shape, example = measured_rule(rule, number, of_set, hint, log=log)
    build = partial(rule_by_numbers, shape)
    filled = filling(build, example)
    assert filled is not None
    other = data.draw(other_rules(shape))
    assert list(filled(example)) == list(build(example))
    assert list(filled(other)) == list(build(other))


def test_a_group_of_many_rules_has_the_flows_that_each_has_alone() -> None:
    rules = [
        Rule(f"{direction.value}-{port}", direction, Family.IPV4, TCP, PortRange(port, port), remote=remote)
        for port in range(1, 20)
        for direction, remote in (
            (Direction.INGRESS, RemoteGroup("b")),
            (Direction.EGRESS, Prefix(Family.IPV4, port << 24, 8)),
        )
    ]
    sets, hints = {remote_name(RemoteGroup("b")): 77}, {rule.id: number for number, rule in enumerate(rules, 1)}
    found = list(rules_flows(rules, 5, sets, hints))
    written = [flow for rule in rules for flow in rule_by_numbers(*_measured(rule, hints[rule.id]))]
    assert sorted(found) == sorted(written)


def _measured(rule: Rule, hint: int) -> tuple[RuleShape, Numbers]:
    return measured_rule(rule, 5, 77 if isinstance(rule.remote, RemoteGroup) else 0, hint, log=False)


def test_a_host_full_of_endpoints_has_the_flows_that_each_has_alone() -> None:
    course = Course(groups=(7, 8))
    for number in range(1, 40):
        port = Port(f"port-{number}", strategies.mac(number), (Prefix(Family.IPV4, number, 32),))
        binding = Binding(port.id, number, number % 3)
        shape, numbers = measured(binding, port, course, stateless=False, logs_drops=False)
        flows = list(endpoint_flows(binding, port, course, stateless=False))
        assert flows == list(endpoint_by_numbers(shape, numbers))


def test_a_template_takes_the_place_of_building() -> None:
    asked = []

    def build(numbers: Numbers) -> Iterator[Flow]:
        asked.append(numbers)
        yield flow(1, 1, (m.IN_PORT(numbers[0]),), (), numbers[0] << 3)

    template = Template(build)
    made = {number: list(template.flows((number,))) for number in range(1, 9)}
    assert made == {number: [flow(1, 1, (m.IN_PORT(number),), (), number << 3)] for number in range(1, 9)}
    assert len(asked) == 5


@pytest.mark.parametrize(
    "build",
    [
        lambda numbers: [flow(1, 1, (m.IN_PORT(numbers[0] * 3),), (), 0)],
        lambda numbers: [flow(1, 1, (m.IN_PORT(5),) * (numbers[0] % 2), (), 0)],
    ],
)
def test_what_numbers_alone_do_not_make_is_built(build: Build) -> None:
    template = Template(build)
    for number in range(1, 9):
        assert list(template.flows((number,))) == list(build((number,)))
