"""What waits to be written, in the order of the log; an endpoint that takes no more holds up no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from engine.core.model import DeliveryScheduled
from engine.runtime.replaying.remade import Source

READY_MIN = 100
"""With fewer that nobody has asked to go, more is read."""
HELD_MAX = 5_000
HELD_BYTES_MAX = 8 << 20
"""So many, or bodies so large, may be held back while more is read: then all wait for their endpoints."""


class Item(NamedTuple):
    """A delivery to be made of what lies at (partition, offset); None: it was made before a crash."""

    at: Source
    endpoint_id: str
    delivery_id: str
    """Empty: there is none to be made, since the endpoint is disabled or the body too large."""
    delivery: DeliveryScheduled | None
    since: tuple[int, ...]
    """Where the outputs ended when it was read: what lies at or after it was written from there on."""

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return 0 if self.delivery is None else len(self.delivery.body)


class Line:
    """Items by endpoint once theirs takes no more, each endpoint's in order."""

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()
        self._held: dict[str, deque[Item]] = {}
        self._count = self._bytes = 0

    def __iter__(self) -> Iterator[Item]:
        return chain(self._ready, *self._held.values())

    def __bool__(self) -> bool:
        return bool(self._ready or self._held)

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return len(self._ready) < READY_MIN and self._count < HELD_MAX and self._bytes < HELD_BYTES_MAX

    def add(self, item: Item) -> None:
        """Take one in, in the order of the log."""
        self._ready.append(item)

    def take(self, limit: int, may_go: Callable[[Item], bool]) -> list[Item]:
        """Take out what may go, held ones first; no item overtakes another of its endpoint."""
        taken: list[Item] = []
        for endpoint_id, waiting in list(self._held.items()):
            while waiting and len(taken) < limit and may_go(waiting[0]):
                taken.append(self._let_go(waiting.popleft()))
            if not waiting:
                del self._held[endpoint_id]
        while self._ready and len(taken) < limit:
            item = self._ready.popleft()
            if item.endpoint_id in self._held or not may_go(item):
                self._hold(item)
            else:
                taken.append(item)
        return taken

    def _hold(self, item: Item) -> None:
        self._held.setdefault(item.endpoint_id, deque()).append(item)
        self._count, self._bytes = self._count + 1, self._bytes + item.size

    def _let_go(self, item: Item) -> Item:
        self._count, self._bytes = self._count - 1, self._bytes - item.size
        return item

    def since(self) -> tuple[int, ...] | None:
        """From where on the outputs of what lies at or after any item are; None if nobody waits."""
        heads = [waiting[0].since for waiting in (self._ready, *self._held.values()) if waiting]
        return min(heads, default=None)  # ends only grow: the smallest is so in each of its places
