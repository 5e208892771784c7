"""router: messages x endpoints view -> deliveries, routings.

Matches subscriptions, renders the body once a profile, drops duplicates, and
records every decision: a RoutedBatch follows when all deliveries of its range
are acknowledged, and only then are its messages done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from threading import Event

from engine.core.model import (
    DeliveryScheduled,
    InvalidRecord,
    MessagePublished,
    RoutedBatch,
    Routing,
    Skipped,
)
from engine.core.profile import InvalidPayloadError, check_payload, render, rfc3339
from engine.core.recent import Recent
from engine.core.routing import Roster, Subscriber, dedup_key, delivery_id, partition_of, refusal, split
from engine.ports import Output, Record
from engine.ports import TopicPartition as Partition
from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow, Input, Owned
from engine.runtime.vault import Keyring
from engine.runtime.views import CONFIGURATION_TOPICS, Configuration, View
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "router"
RECORD_EVERY_S = 0.05
BATCH_MAX = 500
POLL_MAX = 500
POLL_S = 0.02
UNACKNOWLEDGED_MAX = 10_000
BODY_MAX = 1 << 20
"""Largest rendered body, bytes: a record with it and an answer stays below the broker's 2 MiB."""
INVALID_VALUE_MAX = 1 << 20


class Refused(Exception):  # noqa: N818  a decision, not an error
    """A message that must go to `invalid`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Unrecorded:
    """A message that is routed, until its RoutedBatch is written."""

    __slots__ = ("first", "left", "routing", "taken", "view")

    def __init__(self, taken: Input, first: int, routing: Routing, view: tuple[int, ...]) -> None:
        self.taken = taken
        self.first = first
        """Offset after the message before it: holes of the log belong to the message they precede."""
        self.routing = routing
        self.view = view
        self.left = 0
        """Outputs sent and not acknowledged."""

    def acknowledged(self) -> None:
        """One output is on the log."""
        self.left -= 1


class PartitionState:
    """What the router keeps for one partition of `messages`."""

    def __init__(self, window: Recent[bytes], next_offset: int) -> None:
        self.window = window
        self.previous = next_offset - 1
        self.unrecorded: deque[Unrecorded] = deque()


def recover(context: Context, owned: Owned, offset: int, output: Record) -> None:
    """Note a found output: a RoutedBatch settles its messages, a delivery says which endpoint has one."""
    if output.topic == "routings":
        batch = context.codec.decode_as(RoutedBatch, output.value)
        owned.found.update({r.offset: r for r in batch.routings if r.offset >= owned.next})
        return
    endpoints = owned.found.setdefault(offset, set())
    if isinstance(endpoints, set):
        endpoints.add((output.key or b"").decode())


class Router:
    """The router's state: the roster of endpoints, and what each partition still owes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._partitions = context.log.partitions("deliveries")
        self._topic = context.settings.prefix + "messages"
        self._states: dict[Partition, PartitionState] = {}
        self.roster = Roster(self._partitions)
        configuration = Configuration(context.codec, Keyring(context.vault), self.roster.put)
        self.view = View(context.log, CONFIGURATION_TOPICS, configuration.fold)
        self._view_offsets: tuple[int, ...] = ()
        self._recorded_at = 0.0
        self.processor = Processor(context.log, self._flow(), context.clock, drain_s=context.settings.drain_s)

    def _flow(self) -> Flow:
        deliveries = tuple(("deliveries", n) for n in range(self._partitions))
        return Flow(
            GROUP,
            ("messages",),
            lambda _, partition: (("routings", partition), *deliveries),
            recover=partial(recover, self._context),
            is_done=lambda found: isinstance(found, Routing),
            owning=self._owning,
        )

    # -- the window of duplicates ------------------------------------------------------

    def _owning(self, owned: Owned) -> None:
        """Refill the window from what was recorded below the committed offset."""
        span_us = int(self._settings.duplicate_window_s * 1_000_000)
        limit = max(8, self._settings.duplicate_window_max // self._partitions)
        state = self._states[owned.at] = PartitionState(Recent(span_us, limit), owned.next)
        at = ("routings", owned.at[1])
        reader = self.processor.progress.reader
        for record in reader.read(reader.since([at], self._context.clock.now() - span_us)):
            batch = self._context.codec.decode_as(RoutedBatch, record.value)
            for routing in batch.routings:
                if routing.offset < owned.next:
                    self._remember(state, routing)

    def _remember(self, state: PartitionState, routing: Routing) -> None:
        if routing.verdict == "routed":
            state.window.put(
                dedup_key(routing.tenant, routing.message_id), routing.digest, routing.accepted_at
            )

    # -- one message -------------------------------------------------------------------

    def take(self, taken: Input, record: Record) -> None:
        """Route one message."""
        state = self._states[taken.owner.at]
        first, state.previous = state.previous + 1, record.offset
        if taken.done:
            assert isinstance(taken.found, Routing)
            self._remember(state, taken.found)
            return
        try:
            message, routing = self._accept(state, taken, record)
        except Refused as refused:
            routing = Routing(record.offset, verdict="invalid")
            self._refuse(
                self._noted(state, Unrecorded(taken, first, routing, self._view_offsets)), refused, record
            )
            return
        self._remember(state, routing)
        unrecorded = self._noted(state, Unrecorded(taken, first, routing, self._view_offsets))
        if routing.verdict == "routed":
            self._deliver(unrecorded, message)

    def _noted(self, state: PartitionState, unrecorded: Unrecorded) -> Unrecorded:
        telemetry.MESSAGES_ROUTED.labels(unrecorded.routing.verdict).inc()
        state.unrecorded.append(unrecorded)
        return unrecorded

    def _accept(
        self, state: PartitionState, taken: Input, record: Record
    ) -> tuple[MessagePublished, Routing]:
        """Decode and check; Refused if it must go to `invalid`."""
        message = self._decode(record)
        if (wrong := refusal(message, self._settings.payload_max)) is not None:
            raise Refused(*wrong)
        try:
            check_payload(message.payload)
            rfc3339(message.published_at)
        except InvalidPayloadError as error:
            raise Refused("payload", str(error)) from None
        digest = sha256(message.payload).digest()[:16]
        # what has deliveries already was routed before a restart: it stays so
        known = None if taken.found else state.window.get(dedup_key(message.tenant, message.id))
        if known is not None and known != digest:
            raise Refused("conflict", "the same id was used before with another payload")
        return message, Routing(
            record.offset,
            message.tenant,
            message.id,
            message.event_type,
            record.timestamp,
            digest,
            "routed" if known is None else "duplicate",
            bytes=len(message.payload),
        )

    def _decode(self, record: Record) -> MessagePublished:
        try:
            return self._context.codec.decode_as(MessagePublished, record.value)
        except UnknownSchemaError as error:
            raise Refused("unknown_schema", str(error)) from None
        except UndecodableError as error:
            raise Refused("undecodable", str(error)) from None

    def _refuse(self, unrecorded: Unrecorded, refused: Refused, record: Record) -> None:
        telemetry.INVALID_RECORDS.labels(refused.reason).inc()
        value = InvalidRecord(
            record.topic,
            record.partition,
            record.offset,
            refused.reason,
            refused.detail,
            record.key or b"",
            (record.value or b"")[:INVALID_VALUE_MAX],
            self._context.clock.now(),
        )
        cause = {headers.CAUSE: headers.cause(record.topic, record.partition, record.offset)}
        self._send(unrecorded, Output("invalid", 0, record.key, self._context.codec.encode(value), cause))

    def _deliver(self, unrecorded: Unrecorded, message: MessagePublished) -> None:
        """Send a delivery for each endpoint that matches and has none yet; note them all in the routing."""
        chosen, disabled = split(self.roster.of(message.tenant).values(), message.event_type)
        found = unrecorded.taken.found
        existing: set[str] = found if isinstance(found, set) else set()
        skipped = [Skipped(s.endpoint.id, "disabled") for s in disabled if s.endpoint.id not in existing]
        bodies: dict[str, bytes] = {}
        matched = list(existing)
        for subscriber in chosen:
            if subscriber.endpoint.id in existing:
                continue
            body = self._body(bodies, subscriber, message)
            if len(body) > BODY_MAX:
                skipped.append(Skipped(subscriber.endpoint.id, "too_large"))
                continue
            matched.append(subscriber.endpoint.id)
            self._schedule(unrecorded, subscriber, message, body)
        unrecorded.routing = replace(unrecorded.routing, matched=tuple(matched), skipped=tuple(skipped))
        telemetry.DELIVERIES_SCHEDULED.inc(len(matched))

    def _body(self, bodies: dict[str, bytes], subscriber: Subscriber, message: MessagePublished) -> bytes:
        name = subscriber.endpoint.settings.profile
        if name not in bodies:
            bodies[name] = render(self._context.profiles[name], message)
        return bodies[name]

    def _schedule(
        self, unrecorded: Unrecorded, subscriber: Subscriber, message: MessagePublished, body: bytes
    ) -> None:
        endpoint, routing = subscriber.endpoint, unrecorded.routing
        partition = unrecorded.taken.owner.at[1]
        delivery = DeliveryScheduled(
            delivery_id=delivery_id(self._topic, partition, routing.offset, endpoint.id),
            tenant=message.tenant,
            endpoint_id=endpoint.id,
            message_id=message.id,
            event_type=message.event_type,
            attempt=1,
            trigger="scheduled",
            origin="",
            accepted_at=routing.accepted_at,
            published_at=message.published_at,
            profile=endpoint.settings.profile,
            endpoint_epoch=endpoint.epoch,
            view_offset=self.view.position("endpoints", partition_of(message.tenant, self._partitions)),
            source_partition=partition,
            source_offset=routing.offset,
            body=body,
        )
        found = {
            headers.CAUSE: headers.cause("messages", partition, routing.offset),
            headers.DELIVERY: delivery.delivery_id.encode(),
            headers.ATTEMPT: b"1",
        }
        value = self._context.codec.encode(delivery)
        self._send(unrecorded, Output("deliveries", subscriber.partition, endpoint.id.encode(), value, found))

    def _send(self, unrecorded: Unrecorded, output: Output) -> None:
        unrecorded.left += 1
        self.processor.send(output, unrecorded.acknowledged)

    # -- recording ---------------------------------------------------------------------

    def record(self) -> None:
        """Write a RoutedBatch for what is acknowledged from the front of each partition."""
        for at in self._states.keys() - self.processor.progress.owned.keys():
            del self._states[at]
        for at, state in self._states.items():
            while batch := _acknowledged_run(state.unrecorded):
                self._write(at[1], batch)

    def _write(self, partition: int, batch: list[Unrecorded]) -> None:
        value = RoutedBatch(
            partition,
            batch[0].first,
            batch[-1].routing.offset,
            batch[0].view,
            tuple(each.routing for each in batch),
        )
        found = {
            headers.CAUSE: headers.cause("messages", partition, value.last_offset),
            headers.RANGE: b"%d-%d" % (value.first_offset, value.last_offset),
        }
        output = Output("routings", partition, None, self._context.codec.encode(value), found)
        self.processor.send(output, partial(_done, batch))

    # -- the loop ----------------------------------------------------------------------

    def step(self) -> None:
        """Follow the view, route what is there, record what is acknowledged."""
        if self.view.advance() or not self._view_offsets:
            offsets = self.view.offsets
            self._view_offsets = tuple(offsets["endpoints", n] for n in range(self._partitions))
        limit = POLL_MAX if len(self.processor.producer) < UNACKNOWLEDGED_MAX else 1
        for taken, record in self.processor.poll(POLL_S, limit):
            self.take(taken, record)
        self.processor.turn()
        now = self._context.clock.monotonic()
        if now - self._recorded_at >= RECORD_EVERY_S:
            self._recorded_at = now
            self.record()

    def close(self) -> None:
        """Record what is acknowledged, commit, leave."""
        self.processor.producer.flush(self._settings.drain_s)
        self.record()
        self.processor.close()
        self.view.close()


def _acknowledged_run(unrecorded: deque[Unrecorded]) -> list[Unrecorded]:
    """Take from the front what makes one RoutedBatch: acknowledged, without a gap, of one view."""
    batch: list[Unrecorded] = []
    while unrecorded and unrecorded[0].left == 0 and len(batch) < BATCH_MAX:
        head = unrecorded[0]
        if batch and (head.view is not batch[0].view or head.first != batch[-1].routing.offset + 1):
            break
        batch.append(unrecorded.popleft())
    return batch


def _done(batch: Iterable[Unrecorded]) -> None:
    for each in batch:
        each.taken.done = True


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    router = Router(context)
    router.view.load()
    ready()
    while not stop.is_set():
        router.step()
    router.close()
