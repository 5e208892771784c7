"""Places for requests to endpoints that were down when they were last heard of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from engine.core.lane import is_suspect
from engine.runtime.delivering.lane import LiveLane

SHARE = 4
"""Suspects may have a quarter of all places: however many hang until their deadline, others find some."""


class Suspects:
    """Those places, and the lanes that wait for one, in order. Belongs to the event loop."""

    def __init__(self, in_flight: int) -> None:
        self._places = max(1, in_flight // SHARE)
        self._aside: deque[LiveLane] = deque()
        self.in_flight = 0

    def takes(self, lane: LiveLane) -> bool:
        """Whether a request of the lane may begin; if not, `called` names the lane when its turn comes."""
        if not is_suspect(lane.circuit) or self.in_flight < self._places:
            return True
        if not lane.is_aside:
            lane.is_aside = True
            self._aside.append(lane)
        return False

    def called(self) -> Iterator[LiveLane]:
        """As many lanes as there are places; one that needs none leaves it to the next call."""
        for _ in range(min(len(self._aside), self._places - self.in_flight)):
            lane = self._aside.popleft()
            lane.is_aside = False
            yield lane
