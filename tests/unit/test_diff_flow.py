"""Flow values, sets of them, and what changes between two sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.openflow import match as m
from ovsfw.openflow.action import Output, Resubmit
from ovsfw.openflow.diff import Diff, diff
from ovsfw.openflow.flow import DuplicateFlowError, Flow, FlowSet, flow

# Few keys and values, so that sets meet.
keys = st.sampled_from([bytes((table, 0, priority)) for table in (0, 1) for priority in (1, 2, 3)])
flats = st.dictionaries(keys, st.sampled_from((b"a", b"b", b"c")))


def of(flat: dict[bytes, bytes]) -> FlowSet:
    return FlowSet({None: {None: flat}})


def after(flat: dict[bytes, bytes], change: Diff) -> dict[bytes, bytes]:
    """What a switch holds after a change; it must hold what the change takes away."""
    result = dict(flat)
    for key, value in (*change.deletes, *(old for old, _ in change.changes)):
        assert result.pop(key) == value
    for key, value in (*change.adds, *(new for _, new in change.changes)):
        assert key not in result
        result[key] = value
    return result


@given(flats, flats)
def test_a_diff_makes_one_set_the_other_with_the_fewest_flow_mods(
    have: dict[bytes, bytes], want: dict[bytes, bytes]
) -> None:
    change = diff(of(have), of(want))
    assert after(have, change) == want
    assert len(change) == sum(have.get(key) != want.get(key) for key in have.keys() | want.keys())
    assert bool(change) is (have != want)
    assert list(change.deletes) == sorted(change.deletes)
    assert list(change.adds) == sorted(change.adds)


places = st.dictionaries(keys, st.tuples(st.sampled_from("xyz"), st.sampled_from((b"a", b"b"))))


def in_parts(placed: dict[bytes, tuple[str, bytes]]) -> dict[object, dict[bytes, bytes]]:
    return {name: {key: value for key, (part, value) in placed.items() if part == name} for name in "xyz"}


@given(places, places)
def test_parts_make_no_difference(old: dict[bytes, tuple[str, bytes]], new: dict[bytes, tuple[str, bytes]]) -> None:
    """Also when a key moves from one part to another; parts that are equal are one object, as a compiler has it."""
    have, want = in_parts(old), in_parts(new)
    want = {name: have[name] if have[name] == part else part for name, part in want.items()}
    together = diff(
        of({key: value for key, (_, value) in old.items()}), of({key: value for key, (_, value) in new.items()})
    )
    assert diff(FlowSet({None: have}), FlowSet({None: want})) == together
    batches = {name: {name: part} for name, part in have.items()}, {name: {name: part} for name, part in want.items()}
    assert diff(*map(FlowSet, batches)) == together


def test_what_did_not_change_is_not_looked_at() -> None:
    class Untouchable(dict[bytes, bytes]):
        def __iter__(self) -> object:  # type: ignore[override]
            raise AssertionError("looked at")

        keys = items = __iter__  # type: ignore[assignment]

    same = Untouchable({b"\0\0\1": b"a"})
    assert not diff(FlowSet({"a": {"x": same, "y": {}}}), FlowSet({"a": {"x": same}}))
    batch: dict[object, dict[bytes, bytes]] = {"x": same}
    assert not diff(FlowSet({"a": batch, "b": {"y": {}}}), FlowSet({"a": batch}))


def test_a_diff_says_how_much() -> None:
    change = diff(of({b"\0\0\1": b"a", b"\0\0\2": b"a"}), of({b"\0\0\2": b"b", b"\0\0\3": b"a", b"\0\0\4": b"a"}))
    assert str(change) == "+2 -1 ~1 flows"
    assert len(change) == 4
    assert not Diff()


def test_a_flow_says_what_it_is() -> None:
    entry = flow(7, 300, (m.IN_PORT(3),), (Output(4), Resubmit(9)), 0xABCD)
    assert (entry.table, entry.priority, entry.cookie) == (7, 300, 0xABCD)
    assert entry.match == (m.IN_PORT(3),)
    assert entry.actions == (Output(4), Resubmit(9))
    assert (entry.timeouts, entry.flags, entry.importance) == ((0, 0), 0, 0)
    odd = Flow(entry.key, entry.value[:8] + bytes.fromhex("0001000200030004") + entry.instructions)
    assert (odd.timeouts, odd.flags, odd.importance) == ((1, 2), 3, 4)
    assert odd.actions == entry.actions


def test_flows_come_by_table_then_highest_priority_first() -> None:
    entries = [flow(table, priority, (), (), 0) for table in (2, 1) for priority in (5, 300, 40000)]
    found = [(entry.table, entry.priority) for entry in FlowSet.of(entries).flows()]
    assert found == [(1, 40000), (1, 300), (1, 5), (2, 40000), (2, 300), (2, 5)]


def test_a_set_of_flows_is_a_mapping() -> None:
    entry = flow(1, 1, (), (), 0)
    found = FlowSet({"a": {"b": {entry.key: entry.value}, "c": {}}})
    assert (len(found), list(found), found[entry.key]) == (1, [entry.key], entry.value)


def test_no_key_may_stand_twice() -> None:
    one, other = flow(1, 1, (), (), 1), flow(1, 1, (), (), 2)
    with pytest.raises(DuplicateFlowError, match=one.key.hex()):
        FlowSet.of([one, other])
    both = FlowSet({None: {"a": {one.key: one.value}, "b": {other.key: other.value}}})
    with pytest.raises(DuplicateFlowError, match="two parts"):
        both.flat  # noqa: B018 - looking is the point
