"""When lanes that nothing else wakes stand in line again. Belongs to the event loop."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from engine.runtime.delivering.lane import Lane


class Wakes:
    """Times at which lanes are looked at again, soonest first; a lane's last one counts."""

    def __init__(self) -> None:
        self._due: list[tuple[int, str]] = []

    def set(self, lane: Lane, at: int) -> None:
        """Look at a lane again at a time, microseconds since 1970 UTC."""
        lane.wakes_at = at
        heapq.heappush(self._due, (at, lane.endpoint_id))

    def rung(self, lanes: Mapping[str, Lane], now: int) -> Iterator[Lane]:
        """Lanes whose time has come, which wait for nothing any more."""
        while self._due and self._due[0][0] <= now:
            at, endpoint_id = heapq.heappop(self._due)
            lane = lanes.get(endpoint_id)
            if lane is not None and lane.wakes_at == at:
                lane.wakes_at = 0
                yield lane
