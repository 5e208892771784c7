"""What becomes of every delivery, as a fold of facts, and the sums that must come out.

At every moment a message that matched an endpoint is there exactly one of
delivered, failed, pending or skipped. Every transition is in this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from engine.core.model import AttemptFinished, Decision, Reason, RoutedBatch, SkipReason, Status


@dataclass(frozen=True, slots=True)
class Matched:
    """A RoutedBatch says that the endpoint gets a delivery."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A RoutedBatch says that the endpoint matched and gets none."""

    reason: Literal["", SkipReason] = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """An AttemptFinished: the decision of attempt `number`; not `made` when it ended without a request."""

    number: int
    decision: Decision
    made: bool = True
    reason: Reason = ""


Fact = Matched | PassedOver | Finished


@dataclass(frozen=True, slots=True)
class State:
    """Where a delivery stands. `number` is the last attempt decided, `attempts` the requests made."""

    status: Status | None = None
    number: int = 0
    attempts: int = 0
    reason: Reason = ""


UNKNOWN = State()
"""Before any fact about a delivery."""


@dataclass(frozen=True, slots=True)
class Illegal:
    """A fact that cannot follow the state it met; the state stays."""

    state: State
    fact: Fact


STATUS_AFTER: dict[Decision, Status] = {
    "delivered": "delivered",
    "retry": "pending",
    "failed": "failed",
    "skipped": "skipped",
}

TRANSITIONS: dict[Status | None, frozenset[type[Fact]]] = {
    None: frozenset({Matched, PassedOver, Finished}),
    "pending": frozenset({Finished}),
    "skipped": frozenset({Matched}),  # passed over by one router, matched by its overlapping successor
    "delivered": frozenset(),
    "failed": frozenset(),
}
"""Which facts move a delivery on; a fact seen before changes nothing, any other one is illegal."""


def evolve(state: State, fact: Fact) -> State | Illegal:
    """Fold one fact into the state; the first record of (delivery, number) counts, later ones are no-ops."""
    if is_repeated(state, fact):
        return state
    if type(fact) not in TRANSITIONS[state.status]:
        return Illegal(state, fact)
    match fact:
        case Matched():
            return State("pending")
        case PassedOver(reason):
            return State("skipped", reason=reason)
        case Finished(number, decision, made, reason):
            if number != state.number + 1:
                return Illegal(state, fact)
            return State(STATUS_AFTER[decision], number, state.attempts + made, reason)
        case _:
            assert_never(fact)


def is_repeated(state: State, fact: Fact) -> bool:
    """Whether the state already holds what this fact says, or something that overrides it."""
    match fact:
        case Matched():
            return state.status is not None and not (state.status == "skipped" and state.number == 0)
        case PassedOver():
            return state.status is not None
        case Finished(number=number):
            return number <= state.number
        case _:
            assert_never(fact)


def fact_of(record: AttemptFinished) -> Finished:
    """Return what accounting needs of an attempt's record."""
    return Finished(record.attempt, record.decision, record.outcome != "none", record.reason)


def attempts_made(record: AttemptFinished) -> int:
    """Requests that its delivery has had once this record is written."""
    return record.attempt if record.outcome != "none" else record.attempt - 1


@dataclass(frozen=True, slots=True)
class Account:
    """Totals of deliveries: matched = delivered + failed + pending + skipped + unaccounted."""

    matched: int = 0
    delivered: int = 0
    failed: int = 0
    pending: int = 0
    skipped: int = 0

    @property
    def unaccounted(self) -> int:
        """Deliveries that are nowhere to be found."""
        return self.matched - self.delivered - self.failed - self.pending - self.skipped

    def __add__(self, other: Account) -> Account:
        return Account(
            self.matched + other.matched,
            self.delivered + other.delivered,
            self.failed + other.failed,
            self.pending + other.pending,
            self.skipped + other.skipped,
        )


def total(states: Iterable[State], lost: int = 0) -> Account:
    """Add up the states of matched deliveries, `lost` of which are pending and not to be found."""
    counts: dict[Status | None, int] = {}
    for state in states:
        counts[state.status] = counts.get(state.status, 0) + 1
    account = Account(
        sum(counts.values()),
        counts.get("delivered", 0),
        counts.get("failed", 0),
        counts.get("pending", 0),
        counts.get("skipped", 0),
    )
    return replace(account, pending=account.pending - lost)


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets first to last, both included, of a partition of `messages`."""

    first: int
    last: int


def range_of(batch: RoutedBatch) -> Range:
    """Return the offsets that a batch decided about."""
    return Range(batch.first_offset, batch.last_offset)


def gaps(ranges: Sequence[Range], start: int) -> list[Range]:
    """What the ranges leave out between `start` and the highest one's end; they may overlap."""
    missing = []
    expected = start
    for covered in sorted(ranges, key=lambda r: (r.first, r.last)):
        if covered.first > expected:
            missing.append(Range(expected, covered.first - 1))
        expected = max(expected, covered.last + 1)
    return missing
