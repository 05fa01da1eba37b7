"""Units in pages: what comes out is what a cache without a past would give, and what has not changed is the same."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler.units import Unit, Units
from ovsfw.openflow.diff import diff
from ovsfw.openflow.flow import Entry, FlowSet, Nest
from ovsfw.policy.paged import Page, Paged

# So many in a row that pages are cut, and put together again.
ITEMS = st.builds(
    lambda first, count, value: {key: value + (key == first) for key in range(first, first + count)},
    st.integers(0, 60),
    st.integers(0, 90),
    st.integers(0, 1),
)


def units_of(page: Page[int, int], also: int) -> Iterator[Unit]:
    """A flow for each item, which says what the item is and what all are given."""
    for key, value in page.items():
        flow: Entry = (b"\0\0\0" + bytes((key,)), bytes(16) + bytes((value, also)))
        yield Unit(key, (value, also), lambda flow=flow: [flow])  # type: ignore[misc] # as many lambdas as items


def flows(units: Units, items: Paged[int, int], also: int) -> FlowSet:
    return FlowSet(Nest(all=units.pages("all", items, also, units_of)))


@given(st.lists(st.tuples(ITEMS, st.integers(0, 1)), min_size=1, max_size=5))
def test_pages_with_a_past_are_as_those_without(history: list[tuple[dict[int, int], int]]) -> None:
    units = Units(lambda entries: entries)
    items: Paged[int, int] = Paged()
    before = flows(units, items, 0)
    for now, also in history:
        items = items.changed({**dict.fromkeys(items), **now})
        made, found = units.made, flows(units, items, also)
        fresh = flows(Units(lambda entries: entries), Paged(now), also)
        assert found.flat == fresh.flat
        assert diff(before, found) == diff(FlowSet({1: {2: before.flat}}), FlowSet({3: {4: fresh.flat}}))
        assert units.made - made == len(fresh.flat.items() - before.flat.items())
        before = found
