"""One attempt: what a request is made of, and the one record that it ends in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from engine.core.delivery import (
    Verdict,
    decide,
    finished,
    following,
    judge,
    once,
    policy_of,
    unjudged,
)
from engine.core.endpoint import Endpoint, active_secrets
from engine.core.lane import CLOSED, EXPIRES_US, Circuit, Expiry, began_at, expiry
from engine.core.model import Answer, AttemptFinished, DeliveryScheduled, Outcome, Policy
from engine.core.profile import Profile, header_names, key_of_any, request_headers
from engine.core.routing import partition_of
from engine.ports import LogError, Output, Request, Sender
from engine.runtime import telemetry
from engine.runtime.configuration.views import Configuration, View
from engine.runtime.context import Context
from engine.runtime.delivering.parked import Parked
from engine.runtime.owned import Input
from engine.runtime.processor import Processor
from engine.runtime.topics import kept_us
from schemas import headers

FRESH_S = 0.15
"""A view must be known to be complete as of so long ago for a delivery to begin (docs/adr/0011), and"""
SIGNED_WITHIN_S = 0.19
"""as of so long ago when it is signed: `ROTATES_AFTER_US` is longer."""
PREPARED_MAX = 10_000
"""So many endpoints' keys are held in the clear at most; others are opened again when they are needed."""
_LOOK_S = 0.005
_LOG = telemetry.logger("attempt")


@dataclass(slots=True)
class Waiting:
    """A delivery taken in and not yet attempted; `size` is its record's, bytes."""

    taken: Input
    delivery: DeliveryScheduled
    size: int
    appended_at: int
    parked: Parked | None = None
    """The parked lane that it was drained for; None if it came on its own."""
    held_us: int = 0
    """For how long the endpoint's own limits held it back; while it waits, its lane's sum to count from."""
    since: int = 0
    """When the event loop was told of it, microseconds since 1970 UTC."""

    @property
    def began(self) -> int:
        """When the delivery's time began, microseconds since 1970 UTC."""
        return began_at(self.delivery, self.appended_at)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What requests to one version of an endpoint have in common."""

    endpoint: Endpoint
    profile: Profile
    policy: Policy
    keys: dict[int, bytes] = field(repr=False)
    """Signing keys by secret version."""
    headers: Mapping[str, str] = field(repr=False)
    """The endpoint's own."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What lanes and attempts use of the Kafka side."""

    processor: Processor
    configuration: Configuration
    view: View


class Attempts:
    """Makes attempts. Runs on the event loop."""

    def __init__(self, context: Context, inputs: Inputs, sender: Sender) -> None:
        self._context = context
        self._inputs = inputs
        self._sender = sender
        self._partitions = context.log.partitions("endpoints")
        self._freshness = inputs.view.keep_fresh("endpoints", context.clock)
        self._kept_us = kept_us(context.settings, "deliveries")
        self._prepared: dict[str, Prepared] = {}
        """By endpoint; signing keys and header values are in the clear in it."""
        self._unopened: dict[str, Endpoint] = {}
        """Endpoints with a secret that does not open though its keys are here, as they were tried, by id."""

    def endpoint(self, delivery: DeliveryScheduled) -> Endpoint | None:
        """Return the endpoint as our view has it."""
        return self._inputs.configuration.endpoints.get(delivery.endpoint_id)

    def is_deleted(self, endpoint_id: str) -> bool:
        """Whether our view has it as deleted, or no more."""
        endpoint = self._inputs.configuration.endpoints.get(endpoint_id)
        return endpoint is None or endpoint.deleted

    def can_sign(self, delivery: DeliveryScheduled) -> bool:
        """Whether our view is as new as the router's was, and fresh, with the keys to a secret in force."""
        partition = partition_of(delivery.tenant, self._partitions)
        if self._inputs.view.position("endpoints", partition) < delivery.view_offset:
            return False
        endpoint = self.endpoint(delivery)
        if endpoint is None or endpoint.deleted:  # skipped, which needs no secret: it has none any more
            return True
        if not (endpoint.enabled or delivery.trigger == "test"):
            return True
        return self._may_sign(endpoint, FRESH_S) and self._opened_for(endpoint, delivery.profile) is not None

    def is_locked(self, endpoint: Endpoint) -> bool:
        """Whether a secret of it does not open here; LogError if nothing does: it would be everybody's."""
        keyring = self._inputs.configuration.keyring
        if self._unopened.get(endpoint.id) is endpoint:
            return True
        if keyring.is_locked(endpoint) and keyring.opens_nothing:
            raise LogError(
                f"no secret can be opened (endpoint {endpoint.id} is the first that needs one): is "
                "HOOKLOG_MASTER_KEY the one that they were sealed with, or HOOKLOG_PREVIOUS_MASTER_KEY?"
            )
        return keyring.is_locked(endpoint)

    def _may_sign(self, endpoint: Endpoint, fresh_s: float) -> bool:
        """Whether its secrets are those of now: no new one can be in force that our view lacks."""
        clock = self._context.clock
        as_of = self._freshness.as_of(partition_of(endpoint.tenant, self._partitions))
        if endpoint.rotating or clock.monotonic() - as_of > fresh_s:
            return False
        return bool(active_secrets(endpoint, clock.now())) and self._inputs.configuration.keyring.opens(
            endpoint
        )

    def prepare(self, endpoint: Endpoint, profile_name: str) -> Prepared:
        """Policy and keys of an endpoint, made once a version and dialect; the body decides the profile."""
        prepared = self._prepared.get(endpoint.id)
        if prepared is None or prepared.endpoint is not endpoint or prepared.profile.name != profile_name:
            profile = self._context.profile(profile_name)
            policy = policy_of(endpoint, profile.policy)
            prepared = Prepared(endpoint, profile, policy, *self._opened(endpoint, profile))
            self._keep(prepared)
        return prepared

    def _keep(self, prepared: Prepared) -> None:
        """Hold it, and let the oldest go if there are too many."""
        self._prepared.pop(prepared.endpoint.id, None)
        while len(self._prepared) >= PREPARED_MAX:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[prepared.endpoint.id] = prepared

    def forget(self, endpoint_ids: Iterable[str]) -> None:
        """These have changed or were deleted: hold no secret and no header value of before."""
        for endpoint_id in endpoint_ids:
            self._prepared.pop(endpoint_id, None)
            self._unopened.pop(endpoint_id, None)

    def _opened_for(self, endpoint: Endpoint, profile_name: str) -> Prepared | None:
        """Return what to sign with; None if that does not open, for whatever reason."""
        if self._unopened.get(endpoint.id) is endpoint:
            return None
        try:
            return self.prepare(endpoint, profile_name)
        except KeyError:  # its tenant was deleted this moment
            return None
        except ValueError as error:
            self._unopened[endpoint.id] = endpoint
            _LOG.error("endpoint.locked", endpoint=endpoint.id, error=str(error))
            return None

    def policy(self, endpoint: Endpoint, profile_name: str) -> Policy:
        """Return the endpoint's policy; needs no keys."""
        return policy_of(endpoint, self._context.profile(profile_name).policy)

    def expiry(self, waiting: Waiting, endpoint: Endpoint, circuit: Circuit, now: int) -> Expiry:
        """Why a delivery has waited too long; empty if it has not. Healthy endpoints are not asked."""
        if circuit is CLOSED and now - waiting.delivery.accepted_at < EXPIRES_US:
            return ""
        policy = self.policy(endpoint, waiting.delivery.profile)
        return expiry(circuit, policy, waiting.began, waiting.appended_at + self._kept_us, now)

    def _opened(self, endpoint: Endpoint, profile: Profile) -> tuple[dict[int, bytes], Mapping[str, str]]:
        """(signing keys by secret version, the endpoint's own headers); ValueError, KeyError as of `open`."""
        keyring, place = self._inputs.configuration.keyring, (endpoint.tenant, endpoint.id)
        opened = {s.version: keyring.open(*place, s) for s in endpoint.secrets}
        own = keyring.headers(place, endpoint.settings)
        # deliveries in the dialect of before wait, maybe, or secrets of before are still in force
        keys = {version: key_of_any(profile, secret) for version, secret in opened.items()}
        taken = header_names(profile)  # the endpoint's profile may be another by now, which leaves them free
        return keys, {name: value for name, value in own.items() if name.lower() not in taken}

    async def make(self, waiting: Waiting, endpoint: Endpoint) -> tuple[Outcome, Verdict]:
        """Send the request, judge the answer, decide what follows; records nothing yet."""
        delivery = waiting.delivery
        prepared = await self._in_force(delivery, endpoint)
        if prepared is None:
            return Outcome("none"), Verdict("skipped", "deleted")
        answer = await self._sender.send(self._request(prepared, delivery))
        policy = once(prepared.policy) if delivery.trigger == "test" else prepared.policy
        return self._judged(delivery, answer, policy)

    def _judged(self, delivery: DeliveryScheduled, answer: Answer, policy: Policy) -> tuple[Outcome, Verdict]:
        """Judge and decide. If that breaks it is recorded all the same: else the request is made again."""
        now, jitter = self._context.clock.now(), random.random()  # noqa: S311  it spreads retries
        try:
            outcome = judge(answer, policy)
            return outcome, decide(delivery.attempt, outcome, policy, now, jitter)
        except Exception as error:  # noqa: BLE001  a defect of ours: counted, and an alert fires
            telemetry.UNJUDGED.inc()
            _LOG.exception("answer.unjudged", delivery=delivery.delivery_id, endpoint=delivery.endpoint_id)
            outcome = unjudged(answer, policy, f"the answer could not be judged ({type(error).__name__})")
            return outcome, decide(delivery.attempt, outcome, policy, now, jitter)

    async def _in_force(self, delivery: DeliveryScheduled, endpoint: Endpoint) -> Prepared | None:
        """Return what to sign with; None if it was deleted. Time may have passed since `can_sign`."""
        while not (known := self._inputs.configuration.endpoints.get(endpoint.id, endpoint)).deleted:
            may_sign = self._may_sign(known, SIGNED_WITHIN_S)
            if may_sign and (prepared := self._opened_for(known, delivery.profile)) is not None:
                return prepared
            await asyncio.sleep(_LOOK_S)
        return None

    def _request(self, prepared: Prepared, delivery: DeliveryScheduled) -> Request:
        now = self._context.clock.now()
        endpoint = prepared.endpoint
        keys = [prepared.keys[secret.version] for secret in active_secrets(endpoint, now)]
        signed = request_headers(prepared.profile, delivery, keys, now)
        timeout_s = prepared.policy.timeout_us / 1_000_000
        return Request(endpoint.settings.url, {**prepared.headers, **signed}, delivery.body, timeout_s)

    def conclude(self, waiting: Waiting, outcome: Outcome, verdict: Verdict) -> None:
        """Write the one record of an attempt; its input is done when that is acknowledged."""
        taken, delivery = waiting.taken, waiting.delivery
        encode = self._context.codec.encode
        embedded = _embedded(encode, delivery, verdict)
        record = finished(delivery, outcome, verdict, embedded, self._context.worker)
        partition = taken.owner.at[1]
        cause = headers.cause("deliveries", partition, taken.offset)
        key, found = delivery.endpoint_id.encode(), headers.of_attempt(record, cause)
        self._inputs.processor.finish(taken, Output("attempts", partition, key, encode(record), found))
        observe(record, waiting.held_us)


def _embedded(encode: Callable[[object], bytes], delivery: DeliveryScheduled, verdict: Verdict) -> bytes:
    """Return the delivery that the record carries: the next attempt's, or, for a dead letter, this one.

    A test send is no dead letter: whoever sent it waits for the answer.
    """
    if verdict.decision == "retry":
        return encode(following(delivery))
    is_dead = verdict.decision == "failed" and delivery.trigger != "test"
    return encode(delivery) if is_dead else b""


def observe(record: AttemptFinished, held_us: int = 0) -> None:
    """Write the attempt's log line and count it; `held_us` is the endpoint's own part of the wait."""
    telemetry.of(telemetry.DECISIONS, record.decision).inc()
    if record.outcome != "none":
        telemetry.of(telemetry.ATTEMPTS, record.outcome, record.error_class, record.trigger).inc()
        telemetry.ATTEMPT_SECONDS.observe(record.duration_us / 1e6)
        if record.attempt == 1 and record.trigger == "scheduled":  # of a replay the message is old
            latency_us = max(0, record.attempted_at - record.accepted_at)
            telemetry.FIRST_ATTEMPT_SECONDS.observe(latency_us / 1e6)
            telemetry.FIRST_ATTEMPT_OWN_SECONDS.observe(max(0, latency_us - held_us) / 1e6)
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
