"""Places: how much may wait in the memory of this process, and what has left it again."""

from __future__ import annotations

from engine.runtime.delivering.attempt import Waiting
from engine.runtime.settings import Settings


class Places:
    """Counts deliveries, and their sizes in bytes. The event loop writes, the thread that polls reads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.waiting = self.bytes_waiting = 0
        self.left = self.bytes_left = 0
        """All that ever waited and does no more."""
        self.drained_left = self.drained_bytes_left = 0
        """Of those the drained ones."""

    def take(self, waiting: Waiting) -> None:
        """A delivery waits from now on."""
        self.waiting += 1
        self.bytes_waiting += waiting.size

    def leave(self, waiting: Waiting) -> None:
        """It does no more."""
        self.waiting -= 1
        self.bytes_waiting -= waiting.size
        self.left += 1
        self.bytes_left += waiting.size
        if waiting.parked is not None:
            waiting.parked.left += 1
            self.drained_left += 1
            self.drained_bytes_left += waiting.size

    def is_over(self, count: int, size: int) -> bool:
        """Whether a lane that holds so much holds more than is free: few long ones leave room for everybody.

        A shared buffer with dynamic thresholds (Choudhury and Hahne, 1998).
        """
        free = self._settings.waiting - self.waiting
        bytes_free = self._settings.waiting_bytes - self.bytes_waiting
        return count > max(free, 1) or (size > bytes_free and count > 1)
