"""Lanes that wait: until when they sleep, and for how long they may keep deliveries in memory.

What waits in the memory of a lane and came on its own holds the commit.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from engine.runtime.delivering.lane import LiveLane

PATIENCE_US = 5_000_000
"""A lane whose next delivery has waited longer than that is slow: what waits in it is left on the log."""
LOOK_US = 2_500_000


class Patience:
    """Lanes that were held lately, each looked at now and then while something waits in it."""

    def __init__(self) -> None:
        self._watched: deque[tuple[int, LiveLane]] = deque()

    def watch(self, lane: LiveLane, now: int) -> None:
        """Look at the lane in a while; nothing if that is so already."""
        if not lane.is_watched:
            lane.is_watched = True
            self._watched.append((now + LOOK_US, lane))

    def lost(self, now: int) -> Iterator[LiveLane]:
        """Name the lanes that are slow; of those that are parked, note whether they still are."""
        while self._watched and self._watched[0][0] <= now:
            lane = self._watched.popleft()[1]
            lane.is_watched = False
            is_slow = bool(lane.waiting) and now - lane.waiting[0].since > PATIENCE_US
            if lane.waiting:
                self.watch(lane, now)
            if is_slow:
                # parked for want of places or not: by now its own limits keep what is on the log there
                lane.is_to_blame |= bool(lane.held_since)
                yield lane
            if lane.parked is not None:
                lane.parked.is_slow = is_slow


class Wakes:
    """When lanes that wait for a token or a probe stand in line again."""

    def __init__(self) -> None:
        self._sleeping: list[tuple[int, int, LiveLane]] = []
        self._count = 0

    def sleep(self, lane: LiveLane, until: int) -> None:
        """Let it be until then, microseconds since 1970 UTC."""
        lane.wakes_at = until
        self._count += 1
        heapq.heappush(self._sleeping, (until, self._count, lane))

    def due(self, now: int) -> Iterator[LiveLane]:
        """Name those whose time has come, unless another time was set since."""
        while self._sleeping and self._sleeping[0][0] <= now:
            at, _, lane = heapq.heappop(self._sleeping)
            if lane.wakes_at == at:
                lane.wakes_at = 0
                yield lane
