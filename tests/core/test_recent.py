"""The bounded memory, against a plain dictionary that never forgets."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.recent import Recent

SECOND = 1_000_000
START = 1_767_225_600 * SECOND

Puts = list[tuple[int, int]]
"""Microseconds that pass before each, and the key."""

puts = st.lists(st.tuples(st.integers(0, 40) | st.integers(0, 2_000), st.integers(0, 60)), max_size=200)


@given(puts, st.integers(1, 500), st.integers(1, 100))
@example([(1, n) for n in range(15)], 13, 100)
@example([(0, n) for n in range(9)], 1, 10)
def test_nothing_is_forgotten_too_soon(history: Puts, span: int, limit: int) -> None:
    """A key put within the span is remembered with its last value, unless `limit` or more puts came since."""
    recent: Recent[int] = Recent(span, limit)
    now, last = START, dict[int, tuple[int, int]]()
    for number, (passed, key) in enumerate(history):
        now += passed
        recent.put(b"%d" % key, number, now)
        last[key] = number, now
        for known, (value, at) in last.items():
            if now - at <= span and number - value < limit:
                assert recent.get(b"%d" % known) == value


@given(puts, st.integers(1, 500), st.integers(1, 100))
def test_memory_is_bounded(history: Puts, span: int, limit: int) -> None:
    """Never more than the limit and two generations, however fast keys come."""
    recent: Recent[int] = Recent(span, limit)
    now = START
    for number, (passed, _) in enumerate(history):
        now += passed
        recent.put(b"%d" % number, number, now)
        assert len(recent) <= limit + 2 * max(1, limit // 8)


@given(puts, st.integers(8, 500), st.integers(1, 100))
def test_what_is_old_is_forgotten(history: Puts, span: int, limit: int) -> None:
    """Two spans later (and one put to notice) nothing of it is left."""
    recent: Recent[int] = Recent(span, limit)
    now = START
    for number, (passed, key) in enumerate(history):
        now += passed
        recent.put(b"%d" % key, number, now)
    recent.put(b"late", 0, now + 2 * span)
    assert len(recent) == 1
    assert b"late" in recent


def test_a_value_is_never_another_keys() -> None:
    """What was never put is not there; the last value of a key counts."""
    recent: Recent[str] = Recent(60 * SECOND, 100)
    assert recent.get(b"a") is None
    assert b"a" not in recent
    recent.put(b"a", "first", START)
    recent.put(b"a", "second", START + 30 * SECOND)
    assert recent.get(b"a") == "second"
    assert b"b" not in recent


def test_a_clock_that_steps_back_forgets_nothing() -> None:
    """A new leader's append times may lie behind the old one's."""
    recent: Recent[int] = Recent(60 * SECOND, 1_000)
    for number, at in enumerate((START, START - 50 * SECOND, START + SECOND, START + 9 * SECOND)):
        recent.put(b"%d" % number, number, at)
    assert [recent.get(b"%d" % number) for number in range(4)] == [0, 1, 2, 3]


def test_an_empty_value_is_remembered() -> None:
    """Falsy values count: offset 0 and an empty digest are values."""
    recent: Recent[int | bytes] = Recent(SECOND, 10)
    recent.put(b"a", 0, START)
    recent.put(b"b", b"", START)
    assert b"a" in recent
    assert b"b" in recent
