"""Who takes part: the endpoints, how their receivers behave, and what is published.

Shares nothing with the product. Everything is derived from a message's id, so
that the publisher, the receivers and the judge agree without talking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TENANT = "chaos"
KINDS = 8
"""Event types `chaos.0` to `chaos.7`, in turn."""
TIERS = "1s,2s,5s"
RETRY_POLICY = ("1s", "1s", "2s", "2s", "5s", "5s", "5s", "10s")
TIMEOUT_MS = 10_000
SLOW_S = 1.5

Behaviour = Literal["healthy", "slow", "flaky", "sometimes", "lying"]
Mode = Literal["", "down", "gone"]
How = Literal["plain", "reset", "garbage", "half"]
ALWAYS = frozenset({"delivered"})


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An endpoint and its receiver. `kinds` None is all; `may_end` is how its deliveries may end."""

    name: str
    kinds: tuple[int, ...] | None = None
    behaviour: Behaviour = "healthy"
    may_end: frozenset[str] = ALWAYS
    is_late: bool = False
    """Created while the others already receive."""

    @property
    def event_types(self) -> list[str] | None:
        """As the API takes them."""
        return None if self.kinds is None else [f"chaos.{kind}" for kind in self.kinds]

    def wants(self, number: int) -> bool:
        """Whether the message with this number is for it."""
        return self.kinds is None or number % KINDS in self.kinds


SUBSCRIBERS = (
    Subscriber("healthy"),
    Subscriber("flaky", (0, 1, 2, 6), "flaky"),
    Subscriber("sometimes", (3, 4), "sometimes", frozenset({"delivered", "failed"})),
    Subscriber("slow", (5, 6), "slow"),
    Subscriber("lying", (7,), "lying"),
    Subscriber("dead", (0, 3), may_end=frozenset({"delivered", "failed"})),
    Subscriber("gone", (1,), may_end=frozenset({"delivered", "failed", "skipped"})),
    Subscriber("changing", (2,)),
    Subscriber("late", (4,), is_late=True),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answers: a status after a delay, or something that is no answer."""

    status: int
    delay_s: float = 0
    retry_after_s: int = 0
    how: How = "plain"


def message_id(run: str, number: int) -> str:
    """Name a message; `number_of` undoes it."""
    return f"{run}-{number:07d}"


def number_of(run: str, name: str) -> int | None:
    """Which message of the run it is; None if it is of another."""
    before, _, number = name.rpartition("-")
    return int(number) if before == run and number.isdigit() else None


def payload(name: str) -> bytes:
    """100 to 2,100 bytes of JSON that no other message has."""
    seed = hashlib.sha256(name.encode())
    filling = seed.hexdigest() * (1 + seed.digest()[0] % 32)
    return b'{"message":"%s","text":"%s"}' % (name.encode(), filling.encode())


def chance(name: str, ordinal: int) -> int:
    """A number from 0 to 255 for the n-th request of a message, always the same."""
    return hashlib.sha256(f"{name}/{ordinal}".encode()).digest()[0]


def reply(behaviour: Behaviour, mode: Mode, name: str, ordinal: int) -> Reply:
    """What the receiver answers to the n-th request of a message."""
    if mode:
        return _MOODS[mode]
    drawn = chance(name, ordinal)
    if behaviour == "sometimes":
        return Reply(500 if drawn % 3 == 0 else 202)
    return _USUAL[behaviour] if ordinal > 1 or behaviour not in _FIRST else _FIRST[behaviour][drawn % 3]


_MOODS: Mapping[Mode, Reply] = {"down": Reply(0, how="reset"), "gone": Reply(410)}
_USUAL: Mapping[Behaviour, Reply] = {
    "healthy": Reply(204),
    "slow": Reply(200, SLOW_S),
    "flaky": Reply(200),
    "lying": Reply(200),
}
_FIRST: Mapping[Behaviour, tuple[Reply, Reply, Reply]] = {
    "flaky": (Reply(503, retry_after_s=1), Reply(500), Reply(429)),
    "lying": (Reply(0, how="reset"), Reply(0, how="garbage"), Reply(0, how="half")),
}
"""What the first request of a message is answered with."""
