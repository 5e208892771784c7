"""dispatcher: deliveries -> HTTP -> attempts. The only group that makes requests.

Two threads: one polls Kafka and never waits for the other; the other runs the
event loop with a lane for each endpoint. A delivery goes poll -> lane ->
request -> AttemptFinished, and its input is done when that is acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import NamedTuple

import uvloop

from engine.core.delivery import Verdict, decide, finished, following, judge, policy_of, skip_reason
from engine.core.endpoint import Endpoint, active_secrets
from engine.core.model import AttemptFinished, DeliveryScheduled, InvalidRecord, Outcome, Policy
from engine.core.profile import Profile, request_headers, signing_key
from engine.core.recent import Recent
from engine.core.routing import partition_of
from engine.ports import Output, Record, Request, Sender
from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.http import AiohttpSender
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow, Input, Owned
from engine.runtime.vault import Keyring
from engine.runtime.views import CONFIGURATION_TOPICS, Configuration, View
from schemas import headers
from schemas.codec import UndecodableError

GROUP = "dispatcher"
POLL_MAX = 200
LINGER_MS = 5
"""Nobody waits for an attempt's record: let it share a request to the broker."""
FULL_POLL_EVERY_S = 0.05
TICK_S = 0.05
RECENT_US = 120_000_000
RECENT_MAX = 200_000
NO_REQUEST = Outcome("none")


class Waiting(NamedTuple):
    """A delivery taken in and not yet attempted."""

    taken: Input
    delivery: DeliveryScheduled
    size: int


class Lane:
    """What the dispatcher keeps for one endpoint."""

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
    keys: dict[int, bytes]
    """Signing keys by secret version."""


class Intake:
    """The Kafka side: polls, drops copies, hands deliveries over; runs on a thread of its own."""

    def __init__(self, context: Context, hand_over: Callable[[list[Waiting]], None]) -> None:
        self._context = context
        self._settings = context.settings
        self._hand_over = hand_over
        self._recent: Recent[int] = Recent(RECENT_US, RECENT_MAX)
        """Offset on `deliveries` by (delivery, attempt)."""
        self.taken_in = 0
        self.bytes_in = 0
        self._full_polled = 0.0
        self.configuration = Configuration(context.codec, Keyring(context.vault))
        self.view = View(context.log, CONFIGURATION_TOPICS, self.configuration.fold)
        flow = Flow(
            GROUP,
            ("deliveries",),
            lambda _, partition: (("attempts", partition),),
            owning=self._owning,
            linger_ms=LINGER_MS,
        )
        self.processor = Processor(context.log, flow, context.clock, drain_s=context.settings.drain_s)

    def _owning(self, owned: Owned) -> None:
        """Remember what was attempted lately, by whoever owned the partition then."""
        reader = self.processor.progress.reader
        since = self._context.clock.now() - RECENT_US
        for record in reader.read(reader.since([("attempts", owned.at[1])], since)):
            _, _, offset = headers.parse_cause(record.headers[headers.CAUSE])
            self._recent.put(_recent_key(record), offset, record.timestamp)

    def step(self, full: bool) -> None:
        """Poll once and run acknowledgements; when `full`, take single records now and then."""
        self.view.advance()
        if not full:
            self._take(self.processor.poll(0.02, POLL_MAX))
        elif (now := self._context.clock.monotonic()) - self._full_polled > FULL_POLL_EVERY_S:
            self._full_polled = now
            self._take(self.processor.poll(0, 1))
        else:
            self.processor.producer.poll(0.01)
        self.processor.turn()

    def _take(self, records: Sequence[tuple[Input, Record]]) -> None:
        batch = []
        for taken, record in records:
            if not taken.done and (delivery := self._decode(taken, record)) is not None:
                batch.append(Waiting(taken, delivery, len(record.value or b"")))
        if batch:
            self.taken_in += len(batch)
            self.bytes_in += sum(each.size for each in batch)
            self._hand_over(batch)

    def _decode(self, taken: Input, record: Record) -> DeliveryScheduled | None:
        key = _recent_key(record)
        if self._recent.get(key) not in (None, record.offset):
            taken.done = True
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            return None
        try:
            delivery = self._context.codec.decode_as(DeliveryScheduled, record.value)
        except UndecodableError as error:
            self._refuse(taken, record, str(error))
            return None
        self._recent.put(key, record.offset, record.timestamp)
        return delivery

    def _refuse(self, taken: Input, record: Record, detail: str) -> None:
        telemetry.INVALID_RECORDS.labels("undecodable").inc()
        value = InvalidRecord(
            record.topic,
            record.partition,
            record.offset,
            "undecodable",
            detail,
            record.key or b"",
            record.value or b"",
            self._context.clock.now(),
        )
        cause = {headers.CAUSE: headers.cause(record.topic, record.partition, record.offset)}
        self.processor.finish(
            taken, Output("invalid", 0, record.key, self._context.codec.encode(value), cause)
        )


class Lanes:
    """The event loop's side: lanes, requests, decisions."""

    def __init__(self, context: Context, intake: Intake, sender: Sender) -> None:
        self._context = context
        self._settings = context.settings
        self._intake = intake
        self._sender = sender
        self._partitions = context.log.partitions("endpoints")
        self._lease_s = context.settings.session_timeout_s / 2
        self._lanes: dict[str, Lane] = {}
        self._line: deque[str] = deque()
        self._prepared: dict[tuple[str, str], Prepared] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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

    def _stand_in_line(self, endpoint_id: str, lane: Lane) -> None:
        if not lane.queued and lane.waiting and lane.in_flight < self._settings.endpoint_in_flight:
            lane.queued = True
            self._line.append(endpoint_id)

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
            elif self._has_view(lane.waiting[0].delivery):
                self._begin(lane)
                self._stand_in_line(endpoint_id, lane)
            else:
                blocked.append(endpoint_id)
        for endpoint_id in blocked:
            self._stand_in_line(endpoint_id, self._lanes[endpoint_id])

    def _forget_idle(self, endpoint_id: str, lane: Lane) -> None:
        if not lane.waiting and lane.in_flight == 0 and lane.gone_epoch < 0:
            self._lanes.pop(endpoint_id, None)

    def _holds_lease(self) -> bool:
        """Whether a commit was acknowledged lately: else somebody may own our partitions."""
        lease = self._intake.processor.consumer.lease
        return self._context.clock.monotonic() - lease < self._lease_s

    def _has_view(self, delivery: DeliveryScheduled) -> bool:
        """Whether our view is as new as the router's was, data keys included."""
        partition = partition_of(delivery.tenant, self._partitions)
        if self._intake.view.position("endpoints", partition) < delivery.view_offset:
            return False
        endpoint = self._intake.configuration.endpoints.get(delivery.endpoint_id)
        return endpoint is None or self._intake.configuration.keyring.opens(endpoint)

    def _begin(self, lane: Lane) -> None:
        waiting = lane.waiting.popleft()
        self.left += 1
        self.bytes_left += waiting.size
        taken, delivery, _ = waiting
        if taken.owner.stopping:
            return
        taken.owner.started += 1
        endpoint = self._intake.configuration.endpoints.get(delivery.endpoint_id)
        reason = skip_reason(delivery, endpoint) or _gone(lane, delivery)
        if reason or endpoint is None:
            self._conclude(waiting, NO_REQUEST, Verdict("skipped", reason))
            return
        self.in_flight += 1
        lane.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._attempt(lane, waiting, endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _attempt(self, lane: Lane, waiting: Waiting, endpoint: Endpoint) -> None:
        delivery = waiting.delivery
        prepared = self._prepare(endpoint, delivery.profile)
        answer = await self._sender.send(self._request(prepared, delivery))
        self.in_flight -= 1
        lane.in_flight -= 1
        outcome = judge(answer, prepared.policy)
        verdict = decide(
            delivery.attempt,
            outcome,
            prepared.policy,
            self._context.clock.now(),
            random.random(),  # noqa: S311
        )
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
            profile = self._context.profiles[profile_name]
            keyring = self._intake.configuration.keyring
            keys = {
                secret.version: signing_key(profile, keyring.open(endpoint.tenant, endpoint.id, secret))
                for secret in endpoint.secrets
            }
            prepared = Prepared(endpoint, profile, policy_of(endpoint, profile.policy), keys)
            self._prepared[key] = prepared
        return prepared

    def _request(self, prepared: Prepared, delivery: DeliveryScheduled) -> Request:
        now = self._context.clock.now()
        endpoint = prepared.endpoint
        keys = [prepared.keys[secret.version] for secret in active_secrets(endpoint, now)]
        signed = request_headers(prepared.profile, delivery, keys, now)
        return Request(
            endpoint.settings.url,
            {**endpoint.settings.headers, **signed},
            delivery.body,
            prepared.policy.timeout_us / 1_000_000,
        )

    # -- the one record of an attempt --------------------------------------------------

    def _conclude(self, waiting: Waiting, outcome: Outcome, verdict: Verdict) -> None:
        taken, delivery, _ = waiting
        embedded = self._embedded(delivery, verdict)
        record = finished(delivery, outcome, verdict, embedded, self._context.worker)
        cause = headers.cause("deliveries", taken.owner.at[1], taken.offset)
        value = self._context.codec.encode(record)
        found = attempt_headers(record, cause)
        key = delivery.endpoint_id.encode()
        self._intake.processor.finish(taken, Output("attempts", taken.owner.at[1], key, value, found))
        observe(record)

    def _embedded(self, delivery: DeliveryScheduled, verdict: Verdict) -> bytes:
        if verdict.decision == "retry":
            return self._context.codec.encode(following(delivery))
        return self._context.codec.encode(delivery) if verdict.decision == "failed" else b""

    def gauge(self) -> None:
        """Export how much is under way."""
        telemetry.IN_FLIGHT.set(self.in_flight)
        telemetry.WAITING.set(self._intake.taken_in - self.left)


def _gone(lane: Lane, delivery: DeliveryScheduled) -> str:
    return "gone" if delivery.endpoint_epoch <= lane.gone_epoch else ""


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


def _recent_key(record: Record) -> bytes:
    return record.headers.get(headers.DELIVERY, b"") + b"/" + record.headers.get(headers.ATTEMPT, b"")


class Dispatcher:
    """Both sides, wired together."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._sender = AiohttpSender(context.settings.egress_allow)
        self._intake = Intake(context, self._hand_over)
        self._lanes = Lanes(context, self._intake, self._sender)
        self._stopped: asyncio.Future[None] = self._loop.create_future()

    def _hand_over(self, batch: list[Waiting]) -> None:
        self._loop.call_soon_threadsafe(self._lanes.arrive, batch)

    def _full(self) -> bool:
        settings, intake, lanes = self._context.settings, self._intake, self._lanes
        too_many = intake.taken_in - lanes.left >= settings.waiting
        return too_many or intake.bytes_in - lanes.bytes_left >= settings.waiting_bytes

    def _poll(self, stop: Event) -> None:
        """Run on the Kafka thread: never waits for the loop, never stops polling."""
        try:
            while not stop.is_set() and not self._lanes.failed.done():
                self._intake.step(self._full())
            self._intake.processor.close()
            self._intake.view.close()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._stopped.set_exception, error)
            raise
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    async def run(self, stop: Event, ready: Ready) -> None:
        """Run until `stop` is set or something breaks."""
        await asyncio.to_thread(self._intake.view.load)
        thread = Thread(target=self._poll, args=(stop,), name="kafka", daemon=True)
        thread.start()
        ready()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        while not self._stopped.done():
            await asyncio.wait([self._stopped, self._lanes.failed], timeout=TICK_S)
            if self._lanes.failed.done():
                self._lanes.failed.result()
            self._lanes.pump()
            self._lanes.gauge()
            telemetry.flush_attempt_lines()
        await self._sender.close()
        self._stopped.result()


async def _main(context: Context, stop: Event, ready: Ready) -> None:
    await Dispatcher(context).run(stop, ready)


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(context, stop, ready))
