"""A set of coordinates is a set of coordinates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.core.marks import Marks

COORDINATES = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 3_000)), max_size=40)
At = set[tuple[int, int]]


def marked(ats: At) -> Marks:
    """Marks at these."""
    marks = Marks()
    for at in ats:
        marks.add(*at)
    return marks


@given(COORDINATES, COORDINATES)
def test_it_is_the_set_of_what_was_put_in(one: At, other: At) -> None:
    """Membership, size, difference, removal, and what lies within a range."""
    marks = marked(one)
    assert len(marks) == len(one)
    assert {at for at in one | other if at in marks} == one
    left = marks - marked(other)
    assert {at for at in one | other if at in left} == one - other
    assert marks.within(1, 600, 2_000) == sum(p == 1 and 600 <= n < 2_000 for p, n in one)
    for at in other:
        marks.discard(*at)
    assert len(marks) == len(one - other)


@given(COORDINATES)
def test_its_span_is_from_the_lowest_to_behind_the_highest(ats: At) -> None:
    """Of each partition; none if it has none."""
    marks = marked(ats)
    for partition in range(3):
        offsets = [n for p, n in ats if p == partition]
        assert marks.span(partition) == ((min(offsets), max(offsets) + 1) if offsets else None)
