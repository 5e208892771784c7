"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """ports.Clock of this machine."""

    def now(self) -> int:
        """Wall clock, microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
