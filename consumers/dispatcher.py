"""dispatcher: deliveries -> HTTP -> attempts, lanes. The only group that makes requests.

Two threads: one polls Kafka and never waits for the other (engine.runtime.delivering.intake); the other
runs the event loop with a lane for each endpoint (engine.runtime.delivering.lanes). A delivery goes poll ->
lane -> request -> AttemptFinished, and its input is done when that is acknowledged.
What a lane cannot take waits on the log: poll -> parked, later drain -> lane.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from threading import Event

import uvloop

from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.delivering.attempt import Attempts, Inputs, Waiting
from engine.runtime.delivering.http import AiohttpSender
from engine.runtime.delivering.intake import GROUP, Intake
from engine.runtime.delivering.lanes import Lanes
from engine.runtime.delivering.parked import Parked
from engine.runtime.owned import Owned

TICK_S = 0.05


class Dispatcher:
    """Both sides, wired together; as the listener it passes on what the polling thread says."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._loop = asyncio.get_running_loop()
        self._sender = AiohttpSender(context.settings.egress_allow)
        self._intake = Intake(context, self)
        processor = self._intake.processor
        inputs = Inputs(processor, self._intake.configuration, self._intake.view)
        self._attempts = Attempts(context, inputs, self._sender)
        self._lanes = Lanes(context, processor, self._attempts, self._intake.parking)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(partial(self._told, call, *arguments))

    def _told(self, call: Callable[..., None], *arguments: object) -> None:
        """Call it; an exception ends the group: the loop would only log it, and the lanes stand still."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  `run` raises it
            if not self._lanes.failed.done():
                self._lanes.failed.set_exception(error)

    @property
    def drained_left(self) -> int:
        """Drained deliveries that have left their lanes."""
        return self._lanes.places.drained_left

    @property
    def drained_bytes_left(self) -> int:
        """The same in bytes."""
        return self._lanes.places.drained_bytes_left

    def changed(self, endpoint_ids: Collection[str]) -> None:
        """The view has other snapshots of these endpoints."""
        self._post(self._attempts.forget, endpoint_ids)
        self._post(self._lanes.changed, endpoint_ids)

    def arrive(self, batch: Sequence[Waiting]) -> None:
        """Deliveries were taken in."""
        self._post(self._lanes.arrive, batch)

    def restore(self, owned: Owned, found: Iterable[Parked]) -> None:
        """A partition is ours."""
        self._post(self._lanes.restore, owned, found)

    def forget(self, partition: int) -> None:
        """A partition is not ours any more."""
        self._post(self._lanes.forget, partition)

    def resumed(self, parked: Parked, heard: int) -> None:
        """A parked lane's records come on their own again."""
        self._post(self._lanes.resumed, parked, heard)

    def cleared(self, parked: Parked, heard: int) -> None:
        """The log says nothing of a lane any more."""
        self._post(self._lanes.cleared, parked, heard)

    def _fill(self) -> float:
        """Share of the places that are taken: by deliveries that wait, and records not acknowledged yet.

        At 1 the log holds the rest.
        """
        ended = self._intake.processor.unacknowledged
        waiting = self._intake.taken_in - self._lanes.places.left + ended.count
        size = self._intake.bytes_in - self._lanes.places.bytes_left + ended.size
        return max(waiting / self._settings.waiting, size / self._settings.waiting_bytes)

    def _poll(self, stop: Event) -> None:
        """Run on the Kafka thread: never waits for the loop, never stops polling."""
        while not stop.is_set():
            self._intake.step(self._fill() >= 1)
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
                self._intake.processor.give_up()
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
        self._told(self._lanes.pump)
        self._lanes.observe()
        telemetry.WAITING.set(self._intake.taken_in - self._lanes.places.left)
        telemetry.WINDOW_FILL.labels(GROUP).set(self._fill())
        telemetry.flush_attempt_lines()


async def _main(context: Context, stop: Event, ready: Ready) -> None:
    await Dispatcher(context).run(stop, ready)


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(context, stop, ready))
