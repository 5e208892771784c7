"""dispatcher: deliveries -> HTTP -> attempts. The only group that makes requests.

Two threads: one polls Kafka and never waits for the other; the other runs the
event loop with a lane for each endpoint. A delivery goes poll -> lane ->
request -> AttemptFinished, and its input is done when that is acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from threading import Event

import uvloop

from engine.core.model import DeliveryScheduled
from engine.core.recent import Recent
from engine.ports import Record
from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.http import AiohttpSender
from engine.runtime.invalid import invalid_output
from engine.runtime.lanes import Inputs, Lanes, Waiting
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


class Intake:
    """The Kafka side: polls, drops copies, hands deliveries over; runs on a thread of its own."""

    def __init__(self, context: Context, hand_over: Callable[[list[Waiting]], None]) -> None:
        self._context = context
        self._hand_over = hand_over
        self._recent: Recent[int] = Recent(RECENT_US, RECENT_MAX)
        """Offset on `deliveries` by (delivery, attempt)."""
        self._full_polled = 0.0
        self.taken_in = 0
        self.bytes_in = 0
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
            key, cause = headers.attempt_key(record.headers), headers.cause_of(record.headers)
            if key is not None and cause is not None:
                self._recent.put(key, cause[2], record.timestamp)

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
            if not taken.done and (delivery := self._accept(taken, record)) is not None:
                batch.append(Waiting(taken, delivery, len(record.value or b"")))
        if batch:
            self.taken_in += len(batch)
            self.bytes_in += sum(each.size for each in batch)
            self._hand_over(batch)

    def _accept(self, taken: Input, record: Record) -> DeliveryScheduled | None:
        """Decode; None for a copy of one that was taken in, and for what goes to `invalid`."""
        key = headers.attempt_key(record.headers)
        if key is None:
            self._refuse(taken, record, "the headers delivery and attempt are missing")
            return None
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
        now = self._context.clock.now()
        self.processor.finish(taken, invalid_output(self._context.codec, record, "undecodable", detail, now))

    def close(self) -> None:
        """Drain, commit, leave."""
        self.processor.close()
        self.view.close()


class Dispatcher:
    """Both sides, wired together."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._loop = asyncio.get_running_loop()
        self._sender = AiohttpSender(context.settings.egress_allow)
        self._intake = Intake(context, self._hand_over)
        inputs = Inputs(self._intake.processor, self._intake.configuration, self._intake.view)
        self._lanes = Lanes(context, inputs, self._sender)

    def _hand_over(self, batch: list[Waiting]) -> None:
        self._loop.call_soon_threadsafe(self._lanes.arrive, batch)

    def _full(self) -> bool:
        too_many = self._intake.taken_in - self._lanes.left >= self._settings.waiting
        return too_many or self._intake.bytes_in - self._lanes.bytes_left >= self._settings.waiting_bytes

    def _poll(self, stop: Event) -> None:
        """Run on the Kafka thread: never waits for the loop, never stops polling."""
        while not stop.is_set():
            self._intake.step(self._full())
        self._intake.close()

    async def run(self, stop: Event, ready: Ready) -> None:
        """Run until `stop` is set or something breaks; then drain, and raise what broke."""
        await asyncio.to_thread(self._intake.view.load)
        polling = asyncio.create_task(asyncio.to_thread(self._poll, stop))
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        ready()
        while not polling.done():
            await asyncio.wait([polling, self._lanes.failed], timeout=TICK_S)
            if self._lanes.failed.done():
                stop.set()
                break
            self._turn()
        await asyncio.wait([polling])
        self._turn()
        await self._sender.close()
        for ended in (self._lanes.failed, polling):
            if ended.done():
                ended.result()

    def _turn(self) -> None:
        """What happens now and then: start what was waiting for the view or the lease, tell how it goes."""
        self._lanes.pump()
        telemetry.IN_FLIGHT.set(self._lanes.in_flight)
        telemetry.WAITING.set(self._intake.taken_in - self._lanes.left)
        telemetry.flush_attempt_lines()


async def _main(context: Context, stop: Event, ready: Ready) -> None:
    await Dispatcher(context).run(stop, ready)


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(context, stop, ready))
