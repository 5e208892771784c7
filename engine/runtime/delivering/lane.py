"""A live lane: what the dispatcher keeps in memory for one endpoint. Belongs to the event loop."""

from __future__ import annotations

from collections import deque

from engine.core.lane import CLOSED, Bucket, Cap, Circuit, is_suspect, refilled, spent, token_at
from engine.runtime.delivering.attempt import Waiting
from engine.runtime.delivering.parked import Parked
from engine.runtime.owned import Owned

DRAINED_MAX = 256
"""How many deliveries of a parked lane may wait in it; one, while it is down or may be."""
LOOK_US = 1_000_000
"""A lane that waits for a token, or for a key, is looked at so often: what it waits for may have changed."""


class LiveLane:
    """What is kept in memory for one endpoint; what the log says of a lane is `engine.core.lane.LiveLane`."""

    __slots__ = (
        "bucket",
        "bytes",
        "cap",
        "circuit",
        "endpoint_id",
        "gone_version",
        "held_since",
        "held_us",
        "in_flight",
        "is_aside",
        "is_diverted",
        "is_limited",
        "is_locked",
        "is_queued",
        "is_to_blame",
        "is_watched",
        "owned",
        "parked",
        "tenant",
        "waiting",
        "wakes_at",
    )

    def __init__(self, endpoint_id: str, tenant: str, owned: Owned, cap: Cap, now: int) -> None:
        self.endpoint_id = endpoint_id
        self.tenant = tenant
        self.owned = owned
        self.waiting: deque[Waiting] = deque()
        self.bytes = 0
        self.in_flight = 0
        self.is_queued = False
        """Whether the lane stands in the line of those that could start something."""
        self.is_aside = False
        """Whether it waits for a place among the suspects'; what is heard of it meanwhile may end that."""
        self.wakes_at = 0
        """When it stands in line again by itself, microseconds since 1970 UTC; 0: when something happens."""
        self.is_limited = False
        """Whether it has a rate limit: then it is kept while it is idle, and its bucket with it."""
        self.is_locked = False
        """Whether its endpoint's secrets do not open here, by the last look."""
        self.gone_version = -1
        """Highest version of the endpoint that an answer has disabled."""
        self.circuit: Circuit = CLOSED
        self.cap = cap
        self.bucket = Bucket(now)
        self.held_us = 0
        """For how long its own limits have held it back, all in all, without the time since `held_since`."""
        self.held_since = 0
        """Since when they hold it back, microseconds since 1970 UTC; 0: they do not."""
        self.is_watched = False
        """Whether it was held lately: it is looked at for how long its next delivery has waited."""
        self.is_to_blame = True
        """Whether it was parked for its own limits, not for want of places in this process."""
        self.parked: Parked | None = None
        self.is_diverted = False
        """Whether what comes on its own is left on the log."""


def hold(lane: LiveLane, now: int) -> None:
    """Note that its own limits (circuit, rate limit, cap) hold the lane back from now on."""
    lane.held_since = lane.held_since or now


def let_go(lane: LiveLane, now: int) -> None:
    """Note that they hold it back no more."""
    if lane.held_since:
        lane.held_us += now - lane.held_since
        lane.held_since = 0


def held_by(lane: LiveLane, now: int) -> int:
    """For how long they have held it back by `now`, all in all, microseconds."""
    return lane.held_us + (now - lane.held_since if lane.held_since else 0)


def is_held_back(lane: LiveLane) -> bool:
    """Whether something of it must be remembered while it is idle: a rate limit, a 410, failures."""
    return lane.is_limited or lane.gone_version >= 0 or lane.circuit is not CLOSED


def wanted_by(lane: LiveLane) -> int:
    """How many drained deliveries may wait in the lane."""
    return 1 if is_suspect(lane.circuit) or lane.is_locked else DRAINED_MAX


def tell_parked(lane: LiveLane) -> None:
    """Tell the thread that polls, if the lane is parked, how it stands."""
    if lane.parked is not None:
        lane.parked.circuit = lane.circuit
        lane.parked.wanted = wanted_by(lane)


def lock(lane: LiveLane, *, is_locked: bool) -> None:
    """Note whether its endpoint's secrets do not open here."""
    lane.is_locked = is_locked
    tell_parked(lane)


def take_token(lane: LiveLane, rate: float, now: int) -> int:
    """Spend a token of `rate` a second; 0, or when to look again."""
    lane.is_limited = True
    lane.bucket = refilled(lane.bucket, rate, now)
    if lane.bucket.tokens < 1:
        return min(token_at(lane.bucket, rate), now + LOOK_US)
    lane.bucket = spent(lane.bucket)
    return 0
