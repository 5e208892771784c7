"""What ClickHouse says of deliveries, against what the log says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.core.accounting import State
from engine.runtime.accounting.accounts import DeliveryState


@dataclass(frozen=True, slots=True)
class Finding:
    """A delivery that is not as it must be, and how."""

    delivery_id: str
    problem: str


class DeliveryStates(Protocol):
    """What is asked of ClickHouse: `engine.runtime.accounting.accounts.Accounts`."""

    def states(self, since: int, until: int) -> Iterator[DeliveryState]:
        """State of every delivery accepted within a time, microseconds."""

    def made(self, since: int, until: int) -> Iterator[tuple[str, int, int]]:
        """(delivery id, rows in `attempts`, the last one's microseconds) of each delivery with any."""


class Known(Protocol):
    """What the log says of a delivery."""

    @property
    def state(self) -> State:
        """Where it stands."""

    @property
    def changed_at(self) -> int:
        """Since when, microseconds."""

    @property
    def rows(self) -> int:
        """Rows that `attempts` must have of it."""


class Scope(Protocol):
    """What is compared: `engine.runtime.accounting.reconcile.Scope`."""

    @property
    def now(self) -> int:
        """Microseconds."""

    @property
    def since(self) -> int:
        """Accepted from then on."""

    @property
    def until(self) -> int:
        """Accepted before then."""

    @property
    def grace_us(self) -> int:
        """How late the projection may be."""


def compare(known: Mapping[str, Known], history: DeliveryStates, scope: Scope) -> tuple[list[Finding], int]:
    """(what differs from ClickHouse, how many of them changed too lately to be judged)."""
    states, strangers = history.states(scope.since, scope.until), set[str]()
    found = [*_states(known, states, strangers)]
    found += _attempts(known, history.made(scope.since, scope.until), strangers)
    settled = [finding for finding, changed_at in found if changed_at + scope.grace_us < scope.now]
    return settled, len(found) - len(settled)


def _states(
    known: Mapping[str, Known], rows: Iterator[DeliveryState], strangers: set[str]
) -> Iterator[tuple[Finding, int]]:
    """Compare states; adds to `strangers` what the log knows nothing of."""
    unseen = set(known)
    for row in rows:
        entry = known.get(row.delivery_id)
        if entry is None:
            strangers.add(row.delivery_id)
            yield Finding(row.delivery_id, "in ClickHouse's deliveries, and not on the log"), row.updated_at
            continue
        changed_at = max(row.updated_at, entry.changed_at)
        if row.delivery_id not in unseen:
            yield Finding(row.delivery_id, "more than one row in ClickHouse's deliveries"), changed_at
        unseen.discard(row.delivery_id)
        if (row.status, row.attempts) != (entry.state.status, entry.state.attempts):
            log_says = f"{entry.state.status} after {entry.state.attempts}"
            problem = f"{row.status} after {row.attempts} attempts in ClickHouse, {log_says} on the log"
            yield Finding(row.delivery_id, problem), changed_at
    yield from _missing(known, unseen, "not in ClickHouse's deliveries")


def _attempts(
    known: Mapping[str, Known], rows: Iterator[tuple[str, int, int]], strangers: set[str]
) -> Iterator[tuple[Finding, int]]:
    unseen = {delivery for delivery, entry in known.items() if entry.rows}
    for delivery, made, last in rows:
        unseen.discard(delivery)
        entry = known.get(delivery)
        if entry is not None and made != entry.rows:
            problem = f"{made} rows in ClickHouse's attempts, {entry.rows} attempts on the log"
            yield Finding(delivery, problem), max(last, entry.changed_at)
        elif entry is None and delivery not in strangers:
            yield Finding(delivery, "in ClickHouse's attempts, and not on the log"), last
    yield from _missing(known, unseen, "not in ClickHouse's attempts")


def _missing(
    known: Mapping[str, Known], unseen: Iterable[str], problem: str
) -> Iterator[tuple[Finding, int]]:
    return (
        (
            Finding(delivery, f"{problem}, where the log says {_says(known[delivery])}"),
            known[delivery].changed_at,
        )
        for delivery in sorted(unseen)
    )


def _says(entry: Known) -> str:
    return f"{entry.state.status} after {entry.state.attempts} attempts"
