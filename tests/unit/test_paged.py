"""Pages are a dict to whoever reads them, and tell cheaply what has changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ovsfw.policy.paged import Paged

NAMES = st.text(max_size=3)
CHANGES = st.dictionaries(NAMES, st.none() | st.integers(0, 3))


def applied(items: dict[str, int], changes: dict[str, int | None]) -> dict[str, int]:
    """The same with a dict."""
    merged: dict[str, int | None] = {**items, **changes}
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
    assert sorted(map(str, after.differences(before))) == sorted(str(pair) for pair in pairs if pair[0] != pair[1])


@given(st.lists(CHANGES, max_size=4))
def test_only_what_is_there_decides_the_order(history: list[dict[str, int | None]]) -> None:
    paged: Paged[int] = Paged()
    items: dict[str, int] = {}
    for changes in history:
        paged, items = paged.changed(changes), applied(items, changes)
    assert repr(paged) == repr(Paged(dict(sorted(items.items(), reverse=True))))


def test_a_change_leaves_all_other_pages_what_they_were() -> None:
    """The very same: a value that says that it is equal to nothing is still no difference."""

    class Unequal:
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    before: Paged[object] = Paged({f"port-{number}": Unequal() for number in range(5000)})
    after = before.changed({"port-17": None, "new": 1})
    assert {type(new) for _, new in after.differences(before)} == {int, type(None)}
    assert len([*after.differences(before)]) == 2
