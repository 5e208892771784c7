"""Signs of life: what the clients of the log note as they go, and what that says of their process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from engine.runtime.backlog import Backlog

Kind = Literal["member", "producer", "transactions"]
_WAITS_FOR: dict[Kind, str] = {"member": "commit", "producer": "output", "transactions": "transaction"}


class Sign:
    """What one client noted, monotonic seconds; written by its threads, read by the probes."""

    __slots__ = ("backlog", "group", "joined", "kind", "polled", "queued", "round_trip_s", "waits_since")

    def __init__(self, kind: Kind, group: str = "") -> None:
        self.kind: Kind = kind
        self.group = group
        self.joined = kind != "member"
        self.polled: float | None = None
        """When a member last asked for records; None before the first time."""
        self.waits_since: float | None = None
        """Since when the broker has acknowledged nothing of what it was asked; None: nothing is open."""
        self.backlog: Backlog | None = None
        """What a member has not done."""
        self.queued: Callable[[], int] = int
        """How many records a producer holds that no broker has acknowledged."""
        self.round_trip_s = 0.0
        """How long the broker took to acknowledge the last commit, seconds."""

    def asked(self, now: float) -> None:
        """Note that something was asked of the broker."""
        if self.waits_since is None:
            self.waits_since = now

    def wait_s(self, now: float) -> float:
        """How long the broker has owed an answer, seconds."""
        since = self.waits_since
        return 0.0 if since is None else max(0.0, now - since)

    def silence_s(self, now: float) -> float:
        """How long it has not polled, seconds."""
        return 0.0 if self.polled is None else max(0.0, now - self.polled)


class State(NamedTuple):
    """What the probes answer; empty texts are good news."""

    trouble: str = ""
    """Why no work is done now."""
    stuck: str = ""
    """Why only a restart can end that."""


class Limits(NamedTuple):
    """How long what may take, seconds."""

    wait: float
    """Answers of the broker: the lease."""
    silence: float
    """Between two polls."""
    stuck: float
    """The same, until nobody believes any more that it goes on: Kafka has given its partitions away."""


def judge(signs: Iterable[Sign], now: float, limits: Limits) -> State:
    """Say what is wrong, each client's trouble in a few words."""
    signs = list(signs)
    return State("; ".join(_each(signs, _trouble, now, limits)), "; ".join(_each(signs, _stuck, now, limits)))


_Look = Callable[[Sign, float, Limits], str]


def _each(signs: Iterable[Sign], look: _Look, now: float, limits: Limits) -> list[str]:
    return [found for sign in signs if (found := look(sign, now, limits))]


def _trouble(sign: Sign, now: float, limits: Limits) -> str:
    name = f"{sign.group}: " if sign.group else ""
    if not sign.joined:
        return f"{name}has not joined its group yet"
    if (silence := sign.silence_s(now)) > limits.silence:
        return f"{name}has not polled for {silence:.0f} s: it drains, reads back or is stuck"
    if (wait := sign.wait_s(now)) > limits.wait:
        return f"{name}no {_WAITS_FOR[sign.kind]} acknowledged for {wait:.0f} s"
    return ""


def _stuck(sign: Sign, now: float, limits: Limits) -> str:
    silence = sign.silence_s(now)
    return f"{sign.group} has not polled for {silence:.0f} s" if silence > limits.stuck else ""
