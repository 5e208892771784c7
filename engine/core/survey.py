"""What a replay has to deliver: a fold of what was routed, attempted and given up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.core.marks import Marks
from engine.core.model import AttemptFinished, RoutedBatch, Routing
from engine.core.replay import Only, ResentBatch
from engine.core.routing import Subscriber, matches, subscription, takes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a replay is about. `ends`: offsets that what it reads bodies from is read up to."""

    tenant: str
    since: int
    only: Only
    event_types: tuple[str, ...]
    ends: Sequence[int]


class Survey:
    """Feed it `routings`, then `attempts`; `conclude`; of `failed` feed it `dead-letters`. Then it knows.

    Marks are offsets of what bodies are read from: `messages`, for `failed` `dead-letters`.
    """

    def __init__(self, wanted: Wanted, subscribers: Mapping[str, Subscriber]) -> None:
        self.wanted = wanted
        self._types = subscription(wanted.event_types or None)
        self.subscribers = subscribers
        self.frontiers: Counter[int] = Counter()
        """Offset of `messages` up to which routings were read, by partition."""
        self._marks: defaultdict[tuple[str, str], Marks] = defaultdict(Marks)
        """By (endpoint, event type)."""
        self._matched: defaultdict[str, Marks] = defaultdict(Marks)
        self._ended: defaultdict[str, Marks] = defaultdict(Marks)
        self._delivered: defaultdict[str, Marks] = defaultdict(Marks)
        self._again: dict[str, tuple[str, int, int]] = {}
        """Deliveries made again that have not ended: endpoint and message's coordinates by id."""
        self._pending_again: frozenset[tuple[str, int, int]] = frozenset()
        self._dead: defaultdict[str, Marks] = defaultdict(Marks)
        """Messages whose dead letter was seen: of several the first counts."""

    # -- folding -----------------------------------------------------------------------

    def routed(self, batch: RoutedBatch) -> None:
        """Take in what the router decided."""
        self.frontiers[batch.partition] = max(self.frontiers[batch.partition], batch.last_offset + 1)
        if self.wanted.only != "failed":
            for routing in batch.routings:
                if self._is_ours(batch.partition, routing):
                    self._route(batch.partition, routing)

    def _is_ours(self, partition: int, routing: Routing) -> bool:
        wanted = self.wanted
        return (
            routing.tenant == wanted.tenant
            and routing.verdict == "routed"
            and routing.accepted_at >= wanted.since
            and routing.offset < wanted.ends[partition]
            and takes(self._types, routing.event_type)
        )

    def _route(self, partition: int, routing: Routing) -> None:
        for endpoint, subscriber in self.subscribers.items():
            if matches(subscriber, routing.event_type):
                self._marks[endpoint, routing.event_type].add(partition, routing.offset)
        for endpoint in routing.matched:
            if endpoint in self.subscribers:
                self._matched[endpoint].add(partition, routing.offset)

    def resent(self, batch: ResentBatch) -> None:
        """Take in what was made again: by others, or by the same replay before it was interrupted."""
        if batch.tenant == self.wanted.tenant:
            for each in batch.deliveries:
                if each.trigger != "test":
                    at = each.endpoint_id, each.source_partition, each.source_offset
                    self._again[each.delivery_id] = at

    def attempted(self, attempt: AttemptFinished) -> None:
        """Take in an attempt of one of the endpoints."""
        if attempt.decision == "retry" or attempt.trigger == "test":
            return
        at = attempt.source_partition, attempt.source_offset
        if attempt.decision == "delivered":
            self._delivered[attempt.endpoint_id].add(*at)
        if attempt.trigger == "scheduled":
            self._ended[attempt.endpoint_id].add(*at)
        else:
            self._again.pop(attempt.delivery_id, None)

    def dead(self, attempt: AttemptFinished, partition: int, offset: int) -> None:
        """Take in a dead letter of one of the endpoints; it counts if nothing was or is made of it since."""
        endpoint, at = attempt.endpoint_id, (attempt.source_partition, attempt.source_offset)
        is_ours = attempt.tenant == self.wanted.tenant and takes(self._types, attempt.event_type)
        if not is_ours or at in self._dead[endpoint]:
            return
        self._dead[endpoint].add(*at)
        if at not in self._delivered[endpoint] and (endpoint, *at) not in self._pending_again:
            self._marks[endpoint, attempt.event_type].add(partition, offset)

    # -- what follows ------------------------------------------------------------------

    def conclude(self) -> None:
        """All attempts are known: leave out, of what was missed, what was delivered or is on its way."""
        self._pending_again = frozenset(self._again.values())
        if self.wanted.only != "missed":
            return
        for (endpoint, event_type), marks in self._marks.items():
            pending = self._matched[endpoint] - self._ended[endpoint]
            self._marks[endpoint, event_type] = marks - self._delivered[endpoint] - pending
        for endpoint, partition, offset in self._pending_again:
            for marks in self._of(endpoint):
                marks.discard(partition, offset)

    def _of(self, endpoint: str) -> Iterator[Marks]:
        return (marks for (each, _), marks in self._marks.items() if each == endpoint)

    def is_wanted(self, endpoint: str, event_type: str, at: tuple[int, int]) -> bool:
        """Whether what is at (partition, offset) goes to an endpoint."""
        marks = self._marks.get((endpoint, event_type))
        return marks is not None and at in marks

    def by_event_type(self) -> Counter[str]:
        """How many deliveries there are to make, by event type."""
        counts: Counter[str] = Counter()
        for (_, event_type), marks in self._marks.items():
            counts[event_type] += len(marks)
        return +counts

    def count(self, partition: int, first: int, end: int) -> int:
        """How many deliveries there are to make of the offsets from `first` to below `end`."""
        return sum(marks.within(partition, first, end) for marks in self._marks.values())

    def span(self, partition: int) -> tuple[int, int] | None:
        """Offsets of a partition between which all that is wanted lies; None if nothing is."""
        spans = [span for marks in self._marks.values() if (span := marks.span(partition))]
        return (min(first for first, _ in spans), max(end for _, end in spans)) if spans else None
