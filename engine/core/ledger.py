"""The continuous accounting: what is pending, what RoutedBatches tile, how many deliveries a minute made.

A fold of the log that never holds its history. A pending delivery is 12 bytes
that stand for its id and one integer; one that ended is remembered for a while,
because copies of its records, or the RoutedBatch that names it, may come later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from engine.core.accounting import Range, range_of
from engine.core.minutes import MINUTE_US, Minute
from engine.core.model import RoutedBatch, Routing
from engine.core.recent import RECENT_MAX, RECENT_US, Recent
from engine.core.replay import ResentBatch
from engine.core.routing import delivery_id
from engine.core.tiling import Tiling

CONTRADICTIONS_MAX = 10_000
_ENDPOINT_BITS, _NUMBER_BITS = 30, 16
_DUE_SHIFT = _ENDPOINT_BITS + 1 + _NUMBER_BITS
_MATCHED = 1 << _ENDPOINT_BITS
_NUMBER_SHIFT = _ENDPOINT_BITS + 1
_SECOND = 1_000_000


def key_of(delivery: str) -> bytes:
    """Return the 12 bytes that stand for a delivery: those that an id of the router spells."""
    if len(delivery) == 28 and delivery.startswith("dlv_"):
        try:
            return bytes.fromhex(delivery[4:])
        except ValueError:
            pass
    return blake2b(delivery.encode(), digest_size=12).digest()


class Attempted(NamedTuple):
    """What the headers of an AttemptFinished say. `due` is 0 unless a retry follows; microseconds."""

    key: bytes
    endpoint: str
    number: int
    due: int
    at: int


class Pending(NamedTuple):
    """A delivery that waits for attempt `number`, due at `due` (microseconds, whole seconds)."""

    key: bytes
    endpoint: str
    number: int
    due: int


class Ledger:
    """Which deliveries are pending."""

    def __init__(self) -> None:
        self._pending: dict[bytes, int] = {}
        """Due second, awaited number, whether matched, endpoint: in the bits of one integer."""
        self._ended: Recent[int] = Recent(RECENT_US, RECENT_MAX)
        """Last number by key."""
        self._early: dict[bytes, int] = {}
        """When they ended: deliveries of which no RoutedBatch has told so far."""
        self._endpoints: list[str] = []
        self._numbers: dict[str, int] = {}
        self.contradictions: deque[tuple[int, Pending]] = deque(maxlen=CONTRADICTIONS_MAX)
        """When, and what, of attempts that left one out or came after the end."""

    def __len__(self) -> int:
        return len(self._pending)

    def _packed(self, endpoint: str, number: int, due: int) -> int:
        index = self._numbers.get(endpoint)
        if index is None:
            index = self._numbers[endpoint] = len(self._endpoints)
            self._endpoints.append(endpoint)
        return due // _SECOND << _DUE_SHIFT | number << _NUMBER_SHIFT | index

    def _unpacked(self, key: bytes, packed: int) -> Pending:
        endpoint = self._endpoints[packed & (_MATCHED - 1)]
        return Pending(key, endpoint, _number(packed), (packed >> _DUE_SHIFT) * _SECOND)

    def known(self, pending: Pending) -> None:
        """Take in what was pending before the log is folded from here on."""
        self._pending[pending.key] = self._packed(pending.endpoint, pending.number, pending.due)

    def matched(self, key: bytes, endpoint: str, accepted_at: int) -> None:
        """A RoutedBatch names the delivery, for the first time."""
        packed = self._pending.get(key)
        if packed is not None:
            self._pending[key] = packed | _MATCHED
        elif self._early.pop(key, None) is None:
            self._pending[key] = self._packed(endpoint, 1, accepted_at) | _MATCHED

    def made_again(self, key: bytes, endpoint: str, at: int) -> None:
        """A ResentBatch names the delivery; nothing tells a batch from its copy but what is remembered."""
        packed = self._pending.get(key)
        if packed is not None:
            self._pending[key] = packed | _MATCHED
        elif self._early.pop(key, None) is None and self._ended.get(key) is None:
            self._pending[key] = self._packed(endpoint, 1, at) | _MATCHED

    def attempted(self, attempt: Attempted) -> None:
        """Fold an attempt: the first record of (delivery, number) counts."""
        key, endpoint, number, due, at = attempt
        packed = self._pending.get(key)
        awaited = self._awaited(key, number, packed)
        if number < awaited:
            return
        if number > awaited:
            self.contradictions.append((at, Pending(key, endpoint, number, due)))
            if packed is None:
                return
        if due:
            matched = (packed or 0) & _MATCHED
            self._pending[key] = self._packed(endpoint, number + 1, due) | matched
            return
        self._pending.pop(key, None)
        self._ended.put(key, number, at)
        if not (packed or 0) & _MATCHED:
            self._early[key] = at

    def _awaited(self, key: bytes, number: int, packed: int | None) -> int:
        """Return the number that comes next: any, of a delivery nobody has told of; none, after the end."""
        if packed is not None:
            return _number(packed)
        ended = self._ended.get(key)
        if ended is None:
            return number
        return ended + 1 if number <= ended else ended

    def overdue(self, before: int) -> list[Pending]:
        """Those due before a time (microseconds)."""
        limit = before // _SECOND << _DUE_SHIFT
        return [self._unpacked(key, packed) for key, packed in self._pending.items() if packed < limit]

    def settle(self, until: int, since: int) -> None:
        """All that was accepted until then is routed: forget what ended before and no RoutedBatch named.

        Contradictions are forgotten that are older than `since`.
        """
        self._early = {key: at for key, at in self._early.items() if at >= until}
        while self.contradictions and self.contradictions[0][0] < since:
            self.contradictions.popleft()


def _number(packed: int) -> int:
    return packed >> _NUMBER_SHIFT & ((1 << _NUMBER_BITS) - 1)


@dataclass(slots=True)
class Books:
    """The whole fold."""

    topic: str
    """Full name of `messages`."""
    ledger: Ledger = field(default_factory=Ledger)
    tilings: dict[int, Tiling] = field(default_factory=dict)
    minutes: dict[int, Minute] = field(default_factory=dict)
    """By minutes since 1970 UTC."""

    def routed(self, batch: RoutedBatch, at: int) -> None:
        """Fold a RoutedBatch appended at a time. A message's first batch counts, later ones are copies."""
        fresh = self.tilings.setdefault(batch.partition, Tiling()).cover(range_of(batch))
        for routing in batch.routings:
            if routing.verdict == "routed" and (routing.matched or routing.skipped):
                minute = self.minutes.setdefault(routing.accepted_at // MINUTE_US, Minute())
                minute.touched_at = max(minute.touched_at, at)
                if _holds(fresh, routing.offset):
                    self._match(batch.partition, routing, minute)
                else:
                    minute.overlapped = True

    def resent(self, batch: ResentBatch) -> None:
        """Fold what was made again: no message's first delivery, so no minute counts it."""
        for each in batch.deliveries:
            self.ledger.made_again(key_of(each.delivery_id), each.endpoint_id, batch.at)

    def _match(self, partition: int, routing: Routing, minute: Minute) -> None:
        minute.deliveries += len(routing.matched) + len(routing.skipped)
        for endpoint in routing.matched:
            delivery = delivery_id(self.topic, partition, routing.offset, endpoint)
            self.ledger.matched(key_of(delivery), endpoint, routing.accepted_at)

    def forget_before(self, minute: int) -> None:
        """Forget the counts of older minutes."""
        for old in [each for each in self.minutes if each < minute]:
            del self.minutes[old]

    def frontier(self, partition: int) -> int:
        """Offset that the next batch of a partition begins at."""
        tiling = self.tilings.get(partition)
        return tiling.frontier or 0 if tiling else 0


def _holds(ranges: Sequence[Range], offset: int) -> bool:
    return any(each.first <= offset <= each.last for each in ranges)


def split(overdue: Sequence[Pending], parked: Mapping[str, int], now: int) -> tuple[list[Pending], int]:
    """(what should have been attempted, how many wait with a parked lane); a lane is parked until a time."""
    late = [each for each in overdue if parked.get(each.endpoint, 0) <= now]
    return late, len(overdue) - len(late)
