"""The states of a delivery as a fold, and the sums."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.accounting import (
    STATUS_AFTER,
    TRANSITIONS,
    UNKNOWN,
    Account,
    Fact,
    Finished,
    Illegal,
    Matched,
    PassedOver,
    Range,
    State,
    evolve,
    gaps,
    total,
)
from engine.core.model import Decision, Status


def fold(facts: list[Fact], state: State = UNKNOWN) -> State:
    """Fold a legal history."""
    for fact in facts:
        after = evolve(state, fact)
        assert isinstance(after, State), after
        state = after
    return state


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Legal histories: matched (or passed over first), retries, perhaps an end."""
    start: list[Fact] = draw(
        st.sampled_from([[Matched()], [PassedOver("disabled")], [PassedOver("disabled"), Matched()]])
    )
    if start[-1] != Matched():
        return start
    retries = draw(st.integers(0, 5))
    facts = [*start, *(Finished(n, "retry") for n in range(1, retries + 1))]
    end = draw(st.sampled_from([None, *get_args(Decision)]))
    if end is not None:
        facts.append(Finished(retries + 1, end, draw(st.booleans()) or end in {"retry", "delivered"}))
    return facts


@pytest.mark.parametrize(
    ("state", "fact", "after"),
    [
        (UNKNOWN, Matched(), State("pending")),
        (UNKNOWN, PassedOver("disabled"), State("skipped", reason="disabled")),
        (UNKNOWN, Finished(1, "delivered"), State("delivered", 1, 1)),
        (State("skipped", reason="disabled"), Matched(), State("pending")),
        (State("pending"), PassedOver("disabled"), State("pending")),
        (State("pending"), Finished(1, "retry"), State("pending", 1, 1)),
        (State("pending", 1, 1), Finished(2, "delivered"), State("delivered", 2, 2)),
        (
            State("pending", 1, 1),
            Finished(2, "failed", False, "expired"),
            State("failed", 2, 1, "expired"),
        ),
        (
            State("pending"),
            Finished(1, "skipped", False, "deleted"),
            State("skipped", 1, 0, "deleted"),
        ),
        (State("skipped", 1, 0, "deleted"), Matched(), State("skipped", 1, 0, "deleted")),
        (State("delivered", 1, 1), Finished(1, "failed"), State("delivered", 1, 1)),
        (State("failed", 3, 3), Matched(), State("failed", 3, 3)),
    ],
)
def test_transition(state: State, fact: Fact, after: State) -> None:
    """Each fact leads to the state that the table says; the first record of an attempt counts."""
    assert evolve(state, fact) == after


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        (UNKNOWN, Finished(2, "delivered")),
        (State("pending"), Finished(2, "retry")),
        (State("delivered", 1, 1), Finished(2, "retry")),
        (State("failed", 3, 3), Finished(4, "delivered")),
        (State("skipped", reason="disabled"), Finished(1, "delivered")),
    ],
)
def test_illegal_fact_is_an_error_value(state: State, fact: Fact) -> None:
    """A missing attempt, and anything after the end, is told with the state it met."""
    assert evolve(state, fact) == Illegal(state, fact)


def test_every_status_has_transitions() -> None:
    """No status and no decision is forgotten in the tables."""
    assert set(TRANSITIONS) == {None, *get_args(Status)}
    assert set(STATUS_AFTER) == set(get_args(Decision))


@given(histories())
def test_legal_history_folds(history: list[Fact]) -> None:
    """Any legal history folds, and attempts are what was made."""
    state = fold(history)
    finished = [fact for fact in history if isinstance(fact, Finished)]
    assert state.number == len(finished)
    assert state.attempts == sum(fact.made for fact in finished)


@given(histories(), st.data())
def test_repeated_record_is_no_op(history: list[Fact], data: st.DataObject) -> None:
    """A record seen again, at any later point, changes nothing."""
    seen = data.draw(st.integers(1, len(history)))
    again = data.draw(st.sampled_from(history[:seen]))
    state = fold(history[:seen])
    assert evolve(state, again) == state
    assert fold([*history[:seen], again, *history[seen:]]) == fold(history)


@given(histories(), st.data())
def test_contradicting_copy_loses(history: list[Fact], data: st.DataObject) -> None:
    """A later record of the same attempt is ignored whatever it decides."""
    state = fold(history)
    if state.number:
        number = data.draw(st.integers(1, state.number))
        decision: Decision = data.draw(st.sampled_from(get_args(Decision)))
        assert evolve(state, Finished(number, decision)) == state


@given(st.lists(histories(), max_size=20))
def test_equation(all_histories: list[list[Fact]]) -> None:
    """Matched is the sum of the four; what is lost moves from pending to unaccounted."""
    states = [fold(history) for history in all_histories]
    account = total(states)
    assert account.matched == len(states)
    assert account.unaccounted == 0
    if account.pending:
        poorer = total(states, lost=1)
        assert (poorer.pending, poorer.unaccounted) == (account.pending - 1, 1)


def test_accounts_add_up() -> None:
    """Accounts of parts add up to that of the whole."""
    assert Account(3, 1, 1, 1) + Account(2, skipped=1) == Account(5, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("ranges", "start", "missing"),
    [
        ([], 0, []),
        ([Range(0, 9), Range(10, 10)], 0, []),
        ([Range(10, 12), Range(0, 9)], 0, []),
        ([Range(0, 9), Range(5, 7), Range(8, 14)], 0, []),
        ([Range(0, 3), Range(5, 6)], 0, [Range(4, 4)]),
        ([Range(2, 3)], 0, [Range(0, 1)]),
        ([Range(2, 3)], 2, []),
        ([Range(0, 3), Range(4, 9)], 5, []),
    ],
)
def test_gaps(ranges: list[Range], start: int, missing: list[Range]) -> None:
    """Ranges tile when nothing between them is left out; overlaps and order do not matter."""
    assert gaps(ranges, start) == missing


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 3))
def test_gaps_name_exactly_what_is_missing(covered: set[int], overlap: int) -> None:
    """The offsets in gaps and in ranges make up the whole."""
    ranges = [Range(offset, min(offset + overlap, max(covered))) for offset in covered]
    inside = {o for r in ranges for o in range(r.first, r.last + 1)}
    missing = {o for r in gaps(ranges, 0) for o in range(r.first, r.last + 1)}
    assert not inside & missing
    assert inside | missing == set(range(max(covered) + 1))
