"""What follows a mapping by what differs says what it would say had it seen nothing before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsfw.compiler.following import Index, Joined, Pages, spliced
from ovsfw.policy.paged import Paged

SMALL = st.integers(0, 3)
ITEMS = st.dictionaries(st.integers(0, 60), SMALL, max_size=60)
# Items, what they lean on, and what all of them are given.
SEEN = st.tuples(ITEMS, st.dictionaries(SMALL, SMALL), SMALL)


def test_a_mapping_is_followed_in_pages_whatever_it_is() -> None:
    pages: Pages[int, int] = Pages()
    first = pages.follow({1: 1, 2: 2})
    assert dict(first) == {1: 1, 2: 2}
    assert pages.follow({2: 2, 1: 1}) is first
    assert dict(pages.follow({2: 3})) == {2: 3}
    assert pages.follow(first) is first


def _made(others: Mapping[int, int], given_now: int, key: int, value: int) -> tuple[int | None, ...] | None:
    return None if others.get(value) == 3 else (key, others.get(value), given_now)


def _users(users: Mapping[int, tuple[int, ...]], value: int) -> tuple[int, ...]:
    return users.get(value, ())


@given(st.lists(SEEN, max_size=5))
def test_what_is_joined_is_what_all_of_it_says(
    history: list[tuple[dict[int, int], dict[int, int], int]],
) -> None:
    """An item leans on what its value names; some are left out."""
    joined: Joined[int, int, tuple[int | None, ...]] = Joined()
    names: Index[int, int, int] = Index(lambda key, value: ((value, key),))
    items: Paged[int, int] = Paged()
    leans: Pages[int, int] = Pages()
    for now, others, given_now in history:
        items = items.changed({**dict.fromkeys(items), **now})
        users, paged = names.follow(items), leans.follow(others)

        make = partial(_made, others, given_now)
        before = joined.found
        found = joined.follow(items, make, given_now, (paged, partial(_users, users)))
        expected = {key: made for key, value in now.items() if (made := make(key, value)) is not None}
        assert found == expected
        assert (found is before) is (before == expected)


@given(st.lists(ITEMS, max_size=5))
def test_an_index_has_all_that_is_said(history: list[dict[int, int]]) -> None:
    def says(key: int, value: int) -> Iterator[tuple[int, int]]:
        for about in range(value):
            yield about, key % 7

    index: Index[int, int, int] = Index(says)
    items: Paged[int, int] = Paged()
    for now in history:
        items = items.changed({**dict.fromkeys(items), **now})
        expected: dict[int, list[int]] = {}
        for key, value in now.items():
            for about, word in says(key, value):
                expected.setdefault(about, []).append(word)
        assert index.follow(items) == {about: tuple(sorted(words)) for about, words in expected.items()}


def test_what_was_refused_is_looked_at_again() -> None:
    joined: Joined[int, int, int] = Joined()
    items = Paged({number: number for number in range(100)})
    joined.follow(items, lambda _, value: value)
    changed = items.changed({7: 70, 8: 80})

    def refuse(_: int, value: int) -> int:
        if value == 80:
            raise ValueError("not 80")
        return value

    for _ in range(2):
        with pytest.raises(ValueError, match="not 80"):
            joined.follow(changed, refuse)
    assert joined.follow(changed, lambda _, value: value) == changed


def test_no_more_is_looked_at_than_differs() -> None:
    seen: list[int] = []

    def make(key: int, value: int) -> int:
        seen.append(key)
        return value

    joined: Joined[int, int, int] = Joined()
    items = Paged({number: number for number in range(5000)})
    leans = Paged(dict.fromkeys(range(5000), 0))
    joined.follow(items, make, leans=(leans, lambda key: (key,)))
    seen.clear()
    joined.follow(items.changed({7: 0, 9: None}), make, leans=(leans.changed({8: 1}), lambda key: (key,)))
    assert sorted(seen) == [7, 8]


@given(st.lists(SMALL, max_size=8), st.lists(SMALL, max_size=8))
def test_what_differs_is_all_that_is_left(one: list[int], other: list[int]) -> None:
    gone, come = spliced(tuple(one), tuple(other))
    alike = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    begin = next(alike, min(len(one), len(other)))
    assert [*one[:begin], *gone, *one[begin + len(gone) :]] == one
    assert [*one[:begin], *come, *one[begin + len(gone) :]] == other
