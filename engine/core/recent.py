"""A bounded memory of what was seen lately."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

V = TypeVar("V")

GENERATIONS = 8
RECENT_US = 120_000_000
RECENT_MAX = 200_000
"""So long, and so many, attempts are remembered by whoever drops copies of their records.

One pair for the dispatcher, the scheduler and the accounting: a copy that the scheduler acts on leads
to an attempt again, which the accounting must count.
"""


class Recent(Generic[V]):
    """Remembers values by key for at least `span_us` microseconds, unless `limit` or more came since.

    Keys are kept in generations that are dropped whole: forgetting costs
    nothing per key, and memory is bounded by `limit` and two generations (a quarter) more.
    """

    def __init__(self, span_us: int, limit: int) -> None:
        self._span_us = span_us
        self._limit = limit
        self._generation_us = max(1, span_us // GENERATIONS)
        self._generation_max = max(1, limit // GENERATIONS)
        self._full: deque[tuple[int, dict[bytes, V]]] = deque()
        """Older generations, each with the time of its last key."""
        self._newest: dict[bytes, V] = {}
        self._began = self._latest = 0

    def get(self, key: bytes) -> V | None:
        """Return what was put under the key, if it is still remembered."""
        if (value := self._newest.get(key)) is not None:
            return value
        for _, generation in reversed(self._full):
            if (value := generation.get(key)) is not None:
                return value
        return None

    def put(self, key: bytes, value: V, now: int) -> None:
        """Remember; `now` (microseconds) ages what was put before."""
        if len(self._newest) >= self._generation_max or now - self._began >= self._generation_us:
            self._age(now)
        self._newest[key] = value
        self._latest = max(self._latest, now)

    def _age(self, now: int) -> None:
        if self._newest:
            self._full.append((self._latest, self._newest))
        self._newest, self._began = {}, now
        kept = len(self)
        while self._full and (
            self._full[0][0] < now - self._span_us or kept - len(self._full[0][1]) >= self._limit
        ):
            kept -= len(self._full.popleft()[1])

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        """Keys held; one that was put again counts once a generation."""
        return len(self._newest) + sum(len(generation) for _, generation in self._full)
