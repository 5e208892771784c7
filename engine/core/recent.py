"""A bounded memory of what was seen lately."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

V = TypeVar("V")

GENERATIONS = 8


class Recent(Generic[V]):
    """Remembers values by key for at least `span_us` microseconds, unless more than `limit` came since.

    Keys are kept in generations that are dropped whole: forgetting costs
    nothing per key, and memory is bounded by `limit` entries.
    """

    def __init__(self, span_us: int, limit: int) -> None:
        self._generation_us = max(1, span_us // (GENERATIONS - 1))
        self._generation_max = max(1, limit // GENERATIONS)
        self._generations: deque[dict[bytes, V]] = deque([{}], maxlen=GENERATIONS)
        self._started = 0

    def get(self, key: bytes) -> V | None:
        """Return what was put under the key, if it is still remembered."""
        for generation in reversed(self._generations):
            if (value := generation.get(key)) is not None:
                return value
        return None

    def put(self, key: bytes, value: V, now: int) -> None:
        """Remember; `now` (microseconds) ages what was put before."""
        newest = self._generations[-1]
        if len(newest) >= self._generation_max or now - self._started >= self._generation_us:
            self._age(now)
        self._generations[-1][key] = value

    def _age(self, now: int) -> None:
        quiet = (now - self._started) // self._generation_us
        if quiet >= GENERATIONS and self._started:
            self._generations.clear()
        self._generations.append({})
        self._started = now

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return sum(map(len, self._generations))
