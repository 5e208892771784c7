"""router: messages x endpoints view -> deliveries, routings.

Matches subscriptions, renders the body once a profile, drops duplicates, and
records every decision: a RoutedBatch follows when all deliveries of its range
are acknowledged, and only then are its messages done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event

from engine.core.model import (
    DeliveryScheduled,
    MessagePublished,
    RoutedBatch,
    Routing,
    Skipped,
)
from engine.core.profile import render
from engine.core.routing import Roster, Subscriber, delivery_id, lean, partition_of, split
from engine.ports import Output, Record, TopicPartition, TrimmedError
from engine.runtime import telemetry
from engine.runtime.configuration.payload_schema import Broken, broken
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Awaited, Configuration, View
from engine.runtime.context import Context, Ready
from engine.runtime.held import HeldPartitions
from engine.runtime.invalid import invalid_output
from engine.runtime.owned import Input, Owned
from engine.runtime.processor import leased
from engine.runtime.progress import Flow
from engine.runtime.routing.acceptance import BODY_MAX, Refused, accept
from engine.runtime.routing.duplicates import Duplicates, digest_of
from engine.runtime.routing.unrecorded import Unrecorded, acknowledged_run
from engine.runtime.topics import partitions_of
from schemas import headers
from schemas.codec import UnknownSchemaError

GROUP = "router"
RECORD_EVERY_S = 0.05
POLL_MAX = 500
POLL_S = 0.02
UNACKNOWLEDGED_MAX = 10_000
UNACKNOWLEDGED_BYTES_MAX = 32 << 20
"""Outputs that may wait for the broker before the next message is routed."""


class PartitionState:
    """What the router keeps for one partition of `messages`."""

    def __init__(self, window: Duplicates, next_offset: int) -> None:
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
        self._states: dict[TopicPartition, PartitionState] = {}
        self._held = HeldPartitions(GROUP)
        self.roster = Roster(self._partitions)
        self._configuration = Configuration(context.codec, Keyring(context.vault), self.roster.put, lean)
        self.view = View(context.log, CONFIGURATION_TOPICS, self._configuration.fold)
        self._knows_catalogue = False
        """Whether the view has what the catalogue was when the last poll returned."""
        self._view_offsets: tuple[int, ...] = ()
        self._recorded_at = 0.0
        self._unacknowledged_bytes = 0
        self.processor = leased(context, self._flow())
        self._awaited = Awaited(self.view, context.log, self.processor.progress.reader, context.clock)

    def _flow(self) -> Flow:
        deliveries = tuple(("deliveries", n) for n in range(self._partitions))
        return Flow(
            GROUP,
            ("messages",),
            lambda _, partition: (("routings", partition), *deliveries),
            recover=self._recover,
            is_done=lambda found: isinstance(found, Routing),
            owning=self._owning,
            disowned=self._disowned,
        )

    def _recover(self, owned: Owned, offset: int, output: Record) -> None:
        """Note a found output; one of a newer hooklog says that messages are done, and not which."""
        try:
            recover(self._context, owned, offset, output)
        except UnknownSchemaError as error:
            self._held.add(owned.at, f"routings offset {output.offset}: {error}")

    def _owning(self, owned: Owned) -> None:
        """Start afresh; refill the window from what was recorded below the committed offset."""
        span_us = int(self._settings.duplicate_window_s * 1_000_000)
        window = Duplicates(span_us, max(8, self._settings.duplicate_window_max // self._partitions))
        reader, next_at = self.processor.progress.reader, self._next_at(owned)
        try:
            window.refill(reader, self._context.codec, (owned.at[1], owned.next), next_at)
        except UnknownSchemaError as error:  # which ids a newer one has seen we cannot know
            self._held.add(owned.at, f"routings: {error}")
        self._states[owned.at] = PartitionState(window, owned.next)

    def _next_at(self, owned: Owned) -> int:
        """When the next message was accepted, microseconds: of a backlog long ago; now if there is none."""
        with suppress(TrimmedError):  # the consumer will say so, and what to do
            for record in self.processor.progress.reader.read({owned.at: owned.next}):
                return record.timestamp
        return self._context.clock.now()

    def _disowned(self, owned: Owned) -> None:
        self._held.discard(owned.at)
        del self._states[owned.at]

    # -- one message -------------------------------------------------------------------

    def take(self, taken: Input, record: Record) -> None:
        """Route one message."""
        state = self._states[taken.owner.at]
        first, state.previous = state.previous + 1, record.offset
        if taken.done:
            assert isinstance(taken.found, Routing)
            state.window.remember(taken.found)
            return
        try:
            message, routing = self._accept(state, taken, record)
        except Refused as refused:
            routing = Routing(record.offset, verdict="invalid")
            self._refuse(self._noted(state, taken, first, routing), refused, record)
            return
        state.window.remember(routing)
        unrecorded = self._noted(state, taken, first, routing)
        if routing.verdict == "routed":
            self._deliver(unrecorded, message)

    def _noted(self, state: PartitionState, taken: Input, first: int, routing: Routing) -> Unrecorded:
        """Remember what the next RoutedBatch has to say of a message; `first`: where its part begins."""
        telemetry.of(telemetry.MESSAGES_ROUTED, routing.verdict).inc()
        unrecorded = Unrecorded(taken, first, routing, self._view_offsets)
        state.unrecorded.append(unrecorded)
        return unrecorded

    def _accept(
        self, state: PartitionState, taken: Input, record: Record
    ) -> tuple[MessagePublished, Routing]:
        """Decode and check; Refused if it must go to `invalid`."""
        message = accept(self._context.codec, record, self._settings.payload_max)
        if not taken.found:
            self._check_catalogue(message)
        digest = digest_of(message.payload)
        # what has deliveries already was routed before a restart: it stays so
        known = None if taken.found else state.window.digest(message, record.timestamp)
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

    def _check_catalogue(self, message: MessagePublished) -> None:
        """Refused, but only by what the catalogue says now: the API may know of a type before we do."""
        if self._broken(message) is None:
            return
        if not self._knows_catalogue:
            self._follow_directory()
        if (wrong := self._broken(message)) is not None:
            raise Refused(wrong.reason, f"{wrong.path}: {wrong.rule}")

    def _broken(self, message: MessagePublished) -> Broken | None:
        return broken(self._configuration.event_types, self._settings.unknown_event_types, message)

    def _follow_directory(self) -> None:
        """Follow it to where it ends now."""
        at = {each: self.view.offsets[each] for each in partitions_of(self._context.log, "directory")}
        last = {(r.topic, r.partition): r.offset for r in self.processor.progress.reader.read(at)}
        while any(self.view.offsets[partition] <= offset for partition, offset in last.items()):
            self._follow_view(0.01)
        self._knows_catalogue = True

    def _refuse(self, unrecorded: Unrecorded, refused: Refused, record: Record) -> None:
        codec, now = self._context.codec, self._context.clock.now()
        self._send(unrecorded, invalid_output(codec, record, refused.reason, refused.detail, now))

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

    def _body(self, bodies: dict[str, bytes], subscriber: Subscriber, message: MessagePublished) -> bytes:
        name = subscriber.endpoint.settings.profile
        if name not in bodies:
            bodies[name] = render(self._context.profile(name), message)
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
        found = headers.of_delivery(delivery, headers.cause("messages", partition, routing.offset))
        value = self._context.codec.encode(delivery)
        telemetry.DELIVERIES_SCHEDULED.inc()
        self._send(unrecorded, Output("deliveries", subscriber.partition, endpoint.id.encode(), value, found))

    def _send(self, unrecorded: Unrecorded, output: Output) -> None:
        unrecorded.left += 1
        size = len(output.value or b"")
        self._unacknowledged_bytes += size
        self.processor.send(output, partial(self._acknowledged, unrecorded, size))

    def _acknowledged(self, unrecorded: Unrecorded, size: int) -> None:
        unrecorded.left -= 1
        self._unacknowledged_bytes -= size

    def _follow_view(self, timeout: float = 0) -> None:
        if self.view.advance(timeout) or not self._view_offsets:
            offsets = self.view.offsets
            self._view_offsets = tuple(offsets["endpoints", n] for n in range(self._partitions))

    def _fill(self) -> float:
        """Share of the places for outputs that wait for the broker that are taken."""
        waiting, size = len(self.processor.producer), self._unacknowledged_bytes
        return max(waiting / UNACKNOWLEDGED_MAX, size / UNACKNOWLEDGED_BYTES_MAX)

    def _wait_for_room(self) -> None:
        """Let the broker catch up with what a large fan-out has sent."""
        while self._fill() > 1:
            self.processor.producer.poll(0.01)

    # -- recording ---------------------------------------------------------------------

    def record(self) -> None:
        """Write a RoutedBatch for what is acknowledged from the front of each partition."""
        for at, state in self._states.items():
            while batch := acknowledged_run(state.unrecorded):
                self._write(at[1], batch)

    def _write(self, partition: int, batch: list[Unrecorded]) -> None:
        value = RoutedBatch(
            partition,
            batch[0].first,
            batch[-1].routing.offset,
            batch[0].view,
            tuple(each.routing for each in batch),
        )
        found = {headers.CAUSE: headers.cause("messages", partition, value.last_offset)}
        output = Output("routings", partition, None, self._context.codec.encode(value), found)
        self.processor.send(output, partial(_done, batch))

    # -- the loop ----------------------------------------------------------------------

    def step(self) -> None:
        """Follow the view, route what is there, record what is acknowledged."""
        self._follow_view()
        polled = self.processor.poll(POLL_S, POLL_MAX)
        self._knows_catalogue = False
        self._awaited.polled()
        for taken, record in self.processor.each(polled):
            if taken.owner.at in self._held:  # it stays open, and so the commit before it
                self.processor.consumer.pause(taken.owner.at)
                continue
            self._wait_for_room()
            self._awaited.wait(record, self._follow_view)
            self.take(taken, record)
        self.processor.turn()
        now = self._context.clock.monotonic()
        if now - self._recorded_at >= RECORD_EVERY_S:
            self._recorded_at = now
            self.record()
            telemetry.WINDOW_FILL.labels(GROUP).set(self._fill())

    def close(self) -> None:
        """Record what is acknowledged, commit, leave."""
        self.processor.producer.flush(self._settings.drain_s)
        self.record()
        self.processor.close()
        self.view.close()


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
