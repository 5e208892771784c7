"""A lane: what the dispatcher keeps for one endpoint. Belongs to the event loop."""

from __future__ import annotations

from collections import deque

from engine.core.lane import CLOSED, Bucket, Cap, Circuit
from engine.runtime.attempt import Waiting
from engine.runtime.parking import Parked
from engine.runtime.progress import Owned

DRAINED_MAX = 256
"""How many deliveries of a parked lane may wait in it; one, while its circuit is open."""


class Lane:
    """What is kept for one endpoint."""

    __slots__ = (
        "bucket",
        "bytes",
        "cap",
        "circuit",
        "endpoint_id",
        "gone_version",
        "in_flight",
        "is_diverted",
        "is_limited",
        "is_queued",
        "owned",
        "parked",
        "tenant",
        "waiting",
        "wakes_at",
    )

    def __init__(self, endpoint_id: str, tenant: str, owned: Owned, now: int) -> None:
        self.endpoint_id = endpoint_id
        self.tenant = tenant
        self.owned = owned
        self.waiting: deque[Waiting] = deque()
        self.bytes = 0
        self.in_flight = 0
        self.is_queued = False
        """Whether the lane stands in the line of those that could start something."""
        self.wakes_at = 0
        """When it stands in line again by itself, microseconds since 1970 UTC; 0: when something happens."""
        self.is_limited = False
        """Whether it has a rate limit: then it is kept while it is idle, and its bucket with it."""
        self.gone_version = -1
        """Highest version of the endpoint that an answer has disabled."""
        self.circuit: Circuit = CLOSED
        self.cap = Cap()
        self.bucket = Bucket(now)
        self.parked: Parked | None = None
        self.is_diverted = False
        """Whether what comes on its own is left on the log."""


def wanted_by(lane: Lane) -> int:
    """How many drained deliveries may wait in the lane."""
    return DRAINED_MAX if lane.circuit.state == "closed" else 1
