"""Lanes: what the dispatcher keeps for each endpoint, and the requests it makes.

Everything here runs on the event loop. A lane holds the deliveries that wait for
one endpoint; at most `endpoint_in_flight` of them are under way, so a slow one
takes its own places and nobody else's.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.core.delivery import Verdict, decide, finished, following, judge, policy_of, skip_reason
from engine.core.endpoint import Endpoint, active_secrets
from engine.core.model import AttemptFinished, DeliveryScheduled, Outcome, Policy
from engine.core.profile import Profile, request_headers, signing_key
from engine.core.routing import partition_of
from engine.ports import LogError, Output, Request, Sender
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.processor import Processor
from engine.runtime.progress import Input
from engine.runtime.views import Configuration, View
from schemas import headers

NO_REQUEST = Outcome("none")


class Waiting(NamedTuple):
    """A delivery taken in and not yet attempted; `size` is its record's, bytes."""

    taken: Input
    delivery: DeliveryScheduled
    size: int


class Lane:
    """What is kept for one endpoint."""

    __slots__ = ("gone_epoch", "in_flight", "queued", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.in_flight = 0
        self.queued = False
        """Whether the lane stands in the line of those that could start something."""
        self.gone_epoch = -1
        """Epoch at which the endpoint answered 410; what was routed up to it is skipped."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What requests to one version of an endpoint have in common."""

    endpoint: Endpoint
    profile: Profile
    policy: Policy
    keys: dict[int, bytes] = field(repr=False)
    """Signing keys by secret version."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the lanes use of the Kafka side."""

    processor: Processor
    configuration: Configuration
    view: View


class Lanes:
    """The lanes of this process; `left` and `bytes_left` count what has left them."""

    def __init__(self, context: Context, inputs: Inputs, sender: Sender) -> None:
        self._context = context
        self._settings = context.settings
        self._inputs = inputs
        self._sender = sender
        self._partitions = context.log.partitions("endpoints")
        self._lease_s = context.settings.session_timeout_s / 2
        self._lanes: dict[str, Lane] = {}
        self._line: deque[str] = deque()
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self.requests: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.left = 0
        self.bytes_left = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrive(self, batch: list[Waiting]) -> None:
        """Queue deliveries in their lanes and start what can start."""
        for waiting in batch:
            endpoint_id = waiting.delivery.endpoint_id
            lane = self._lanes.get(endpoint_id)
            if lane is None:
                lane = self._lanes[endpoint_id] = Lane()
            lane.waiting.append(waiting)
            self._stand_in_line(endpoint_id, lane)
        self.pump()

    def pump(self) -> None:
        """Start requests, one a lane and round, while there is room and the lease holds."""
        if not self._holds_lease():
            return
        blocked: list[str] = []
        while self._line and self.in_flight < self._settings.in_flight:
            endpoint_id = self._line.popleft()
            lane = self._lanes[endpoint_id]
            lane.queued = False
            if not lane.waiting:
                self._forget_idle(endpoint_id, lane)
            elif self._can_sign(lane.waiting[0].delivery):
                self._begin(lane)
                self._stand_in_line(endpoint_id, lane)
            else:
                blocked.append(endpoint_id)
        for endpoint_id in blocked:
            self._stand_in_line(endpoint_id, self._lanes[endpoint_id])

    def _stand_in_line(self, endpoint_id: str, lane: Lane) -> None:
        if not lane.queued and lane.waiting and lane.in_flight < self._settings.endpoint_in_flight:
            lane.queued = True
            self._line.append(endpoint_id)

    def _forget_idle(self, endpoint_id: str, lane: Lane) -> None:
        if not lane.waiting and lane.in_flight == 0 and lane.gone_epoch < 0:
            self._lanes.pop(endpoint_id, None)

    def _holds_lease(self) -> bool:
        """Whether a commit was acknowledged lately: else somebody may own our partitions."""
        lease = self._inputs.processor.consumer.lease
        return self._context.clock.monotonic() - lease < self._lease_s

    def _can_sign(self, delivery: DeliveryScheduled) -> bool:
        """Whether our view is as new as the router's was, with the keys to a secret in force."""
        partition = partition_of(delivery.tenant, self._partitions)
        if self._inputs.view.position("endpoints", partition) < delivery.view_offset:
            return False
        endpoint = self._inputs.configuration.endpoints.get(delivery.endpoint_id)
        if endpoint is None or not endpoint.enabled:
            return True
        active = active_secrets(endpoint, self._context.clock.now())
        return bool(active) and self._inputs.configuration.keyring.opens(endpoint)

    # -- one attempt -------------------------------------------------------------------

    def _begin(self, lane: Lane) -> None:
        waiting = lane.waiting.popleft()
        self.left += 1
        self.bytes_left += waiting.size
        taken, delivery, _ = waiting
        if not taken.begin():
            return
        endpoint = self._inputs.configuration.endpoints.get(delivery.endpoint_id)
        reason = skip_reason(delivery, endpoint) or _gone(lane, delivery)
        if reason or endpoint is None:
            self._prepared.pop((delivery.endpoint_id, delivery.profile), None)
            self._conclude(waiting, NO_REQUEST, Verdict("skipped", reason))
            return
        self.in_flight += 1
        lane.in_flight += 1
        request = asyncio.get_running_loop().create_task(self._attempt(lane, waiting, endpoint))
        self.requests.add(request)
        request.add_done_callback(self._ended)

    def _ended(self, request: asyncio.Task[None]) -> None:
        self.requests.discard(request)
        error = None if request.cancelled() else request.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _attempt(self, lane: Lane, waiting: Waiting, endpoint: Endpoint) -> None:
        delivery = waiting.delivery
        prepared = self._prepare(endpoint, delivery.profile)
        answer = await self._sender.send(self._request(prepared, delivery))
        self.in_flight -= 1
        lane.in_flight -= 1
        outcome = judge(answer, prepared.policy)
        now, jitter = self._context.clock.now(), random.random()  # noqa: S311  it spreads retries
        verdict = decide(delivery.attempt, outcome, prepared.policy, now, jitter)
        if verdict.reason == "gone":
            lane.gone_epoch = max(lane.gone_epoch, delivery.endpoint_epoch)
        self._conclude(waiting, outcome, verdict)
        self._stand_in_line(delivery.endpoint_id, lane)
        self._forget_idle(delivery.endpoint_id, lane)
        self.pump()

    def _prepare(self, endpoint: Endpoint, profile_name: str) -> Prepared:
        """Policy and keys of an endpoint, made once a version; the body decides the profile."""
        key = (endpoint.id, profile_name)
        prepared = self._prepared.get(key)
        if prepared is None or prepared.endpoint is not endpoint:
            profile = self._context.profile(profile_name)
            prepared = Prepared(
                endpoint, profile, policy_of(endpoint, profile.policy), self._keys(endpoint, profile)
            )
            self._prepared[key] = prepared
        return prepared

    def _keys(self, endpoint: Endpoint, profile: Profile) -> dict[int, bytes]:
        keyring = self._inputs.configuration.keyring
        try:
            opened = {s.version: keyring.open(endpoint.tenant, endpoint.id, s) for s in endpoint.secrets}
        except ValueError as error:
            raise LogError(
                f"the secret of endpoint {endpoint.id} cannot be opened ({error}): "
                "is HOOKLOG_MASTER_KEY the one that it was created with?"
            ) from None
        return {version: signing_key(profile, secret) for version, secret in opened.items()}

    def _request(self, prepared: Prepared, delivery: DeliveryScheduled) -> Request:
        now = self._context.clock.now()
        endpoint = prepared.endpoint
        keys = [prepared.keys[secret.version] for secret in active_secrets(endpoint, now)]
        signed = request_headers(prepared.profile, delivery, keys, now)
        timeout_s = prepared.policy.timeout_us / 1_000_000
        return Request(
            endpoint.settings.url, {**endpoint.settings.headers, **signed}, delivery.body, timeout_s
        )

    def _conclude(self, waiting: Waiting, outcome: Outcome, verdict: Verdict) -> None:
        """Write the one record of an attempt; its input is done when that is acknowledged."""
        taken, delivery, _ = waiting
        encode = self._context.codec.encode
        embedded = _embedded(encode, delivery, verdict)
        record = finished(delivery, outcome, verdict, embedded, self._context.worker)
        partition = taken.owner.at[1]
        cause = headers.cause("deliveries", partition, taken.offset)
        output = Output(
            "attempts",
            partition,
            delivery.endpoint_id.encode(),
            encode(record),
            attempt_headers(record, cause),
        )
        self._inputs.processor.finish(taken, output)
        observe(record)


def _gone(lane: Lane, delivery: DeliveryScheduled) -> str:
    return "gone" if delivery.endpoint_epoch <= lane.gone_epoch else ""


def _embedded(encode: Callable[[object], bytes], delivery: DeliveryScheduled, verdict: Verdict) -> bytes:
    """Return the delivery that the record carries: the next attempt's, or, for a dead letter, this one."""
    if verdict.decision == "retry":
        return encode(following(delivery))
    return encode(delivery) if verdict.decision == "failed" else b""


def attempt_headers(record: AttemptFinished, cause: bytes) -> dict[str, bytes]:
    """What the scheduler and health need to know without decoding."""
    found = {
        headers.CAUSE: cause,
        headers.DELIVERY: record.delivery_id.encode(),
        headers.ATTEMPT: b"%d" % record.attempt,
        headers.DECISION: record.decision.encode(),
    }
    if record.error_class:
        found[headers.ERROR_CLASS] = record.error_class.encode()
    if record.delivery:
        found[headers.LENGTH] = b"%d" % len(record.delivery)
    if record.retry_at:
        found[headers.DUE] = b"%d" % record.retry_at
    return found


def observe(record: AttemptFinished) -> None:
    """Write the attempt's log line and count it."""
    telemetry.DECISIONS.labels(record.decision).inc()
    if record.outcome != "none":
        telemetry.ATTEMPTS.labels(record.outcome, record.error_class, record.trigger).inc()
        telemetry.ATTEMPT_SECONDS.observe(record.duration_us / 1e6)
        if record.attempt == 1:
            telemetry.FIRST_ATTEMPT_SECONDS.observe(max(0, record.attempted_at - record.accepted_at) / 1e6)
    telemetry.attempt_line(
        delivery=record.delivery_id,
        tenant=record.tenant,
        endpoint=record.endpoint_id,
        message=record.message_id,
        attempt=record.attempt,
        outcome=record.outcome,
        status=record.status_code,
        error_class=record.error_class,
        duration_ms=record.duration_us // 1000,
        decision=record.decision,
        reason=record.reason,
    )
