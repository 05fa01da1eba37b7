"""Pages are a dict to whoever reads them, and tell cheaply what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from ovsfw.policy.paged import Branch, Paged, Tree, by_name

NAMES = st.text(max_size=3)
CHANGES = st.dictionaries(NAMES, st.none() | st.integers(0, 3))


K = TypeVar("K")


def applied(items: dict[K, int], changes: Mapping[K, int | None]) -> dict[K, int]:
    """The same with a dict."""
    merged: dict[K, int | None] = {**items, **changes}
    return {name: value for name, value in merged.items() if value is not None}


@given(st.dictionaries(NAMES, st.integers(0, 3)), CHANGES)
def test_it_is_what_a_dict_would_be(items: dict[str, int], changes: dict[str, int | None]) -> None:
    before = Paged(items)
    after, expected = before.changed(changes), applied(items, changes)
    assert before == items
    assert after == expected
    assert len(after) == len(expected)
    assert all((after.get(name), name in after) == (expected.get(name), name in expected) for name in changes)
    names = items.keys() | expected.keys()
    pairs = [(items.get(name), expected.get(name)) for name in names]
    found = [(was, now) for _, was, now in after.differences(before)]
    assert sorted(map(str, found)) == sorted(str(pair) for pair in pairs if pair[0] != pair[1])


# So many in a row that pages are cut, and put together again.
SOME = st.builds(
    lambda first, count, value: dict.fromkeys(range(first, first + count), value),
    st.integers(0, 60),
    st.integers(0, 90),
    st.none() | st.integers(0, 1),
)


def shape(tree: Tree[Any, Any]) -> object:
    """How pages lie, and what is in each, in its order."""
    return list(map(shape, tree.pages)) if isinstance(tree, Branch) else list(tree.items())


@given(st.lists(SOME, max_size=5))
def test_only_what_is_there_decides_how_pages_lie(history: list[dict[int, int | None]]) -> None:
    """They are cut and put together again, also where all keys are spread to few places."""
    for spread in (by_name, lambda key: key % 3):
        paged: Paged[int, int] = Paged(spread=spread)
        items: dict[int, int] = {}
        for changes in history:
            before, paged, items = paged, paged.changed(changes), applied(items, changes)
            assert {key for key, _, _ in paged.differences(before)} == {
                key for key in before.keys() | items.keys() if before.get(key) != items.get(key)
            }
            assert (dict(paged.items()), sorted(paged.values())) == (items, sorted(items.values()))
        assert shape(paged.tree) == shape(Paged(dict(sorted(items.items(), reverse=True)), spread).tree)


@given(st.dictionaries(st.integers(0, 150), st.integers(0, 1), max_size=150), SOME)
def test_pages_without_a_difference_are_the_very_same(items: dict[int, int], changes: dict[int, int | None]) -> None:
    before = Paged(items)
    after = before.changed(changes)
    assert (after is before) is (dict(after) == dict(before))
    assert after.changed({key: before.get(key) for key in changes}) == before


def test_a_change_leaves_all_other_pages_what_they_were() -> None:
    """The very same: a value that says that it is equal to nothing is still no difference."""

    class Unequal:
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    before: Paged[str, object] = Paged({f"port-{number}": Unequal() for number in range(5000)})
    after = before.changed({"port-17": None, "new": 1})
    assert {type(new) for _, _, new in after.differences(before)} == {int, type(None)}
    assert len([*after.differences(before)]) == 2
