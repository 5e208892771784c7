"""Who is told what in the demo: one row a receiver, declared once."""

from __future__ import annotations

from dataclasses import dataclass

RETRY_POLICY = ("1s", "2s", "4s")
"""Every endpoint's; four attempts in all."""
TIERS = ",".join(RETRY_POLICY)
IN_FLIGHT_CAP = 64
"""Requests in flight an endpoint: what a receiver that answers 410 may see at most."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A receiver, its endpoint's settings, and how it behaves.

    `event_types` None is all; `secret` None lets the API make one. `first_status`
    answers the first request of each message, `status` any later one; status 0
    is a port at which nothing listens. `delay_s` is how long an answer takes;
    `timeout_ms` is the endpoint's, None its profile's.
    """

    name: str
    tenant: str
    profile: str
    event_types: tuple[str, ...] | None = None
    secret: str | None = None
    status: int = 200
    first_status: int = 0
    delay_s: float = 0
    timeout_ms: int | None = None

    @property
    def succeeds(self) -> bool:
        """Whether every delivery to it ends well."""
        return 200 <= self.status < 300


_CHOSEN_BY_HAND = "Grüße, 秘密 & 🔑: chosen by hand"

SUBSCRIBERS = (
    Subscriber("standard", "baxcloud", "standard", status=204),
    Subscriber("baxcloud", "baxcloud", "baxcloud"),
    Subscriber("bedrud", "bedrud", "bedrud", secret=_CHOSEN_BY_HAND),
    Subscriber("meetingbaas", "meetingbaas", "meetingbaas", status=202),
    Subscriber("flaky", "bedrud", "standard", ("room.*", "participant.joined"), first_status=503),
    Subscriber("slow", "bedrud", "bedrud", ("recording.completed",), delay_s=3),
    # its circuit opens, and what waits behind it fails when delays and timeouts are over: 12 s
    Subscriber("refusing", "meetingbaas", "standard", ("event.*",), status=0, timeout_ms=1_000),
    Subscriber("gone", "baxcloud", "standard", ("participant.*",), status=410),
    Subscriber("picky", "meetingbaas", "meetingbaas", ("meeting.failed", "calendar.*")),
)
