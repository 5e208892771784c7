"""The pipeline on the log in memory, with the real sender and this moment's clock."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from engine.core.model import Answer, AttemptFinished, DeliveryScheduled, Trigger
from engine.core.routing import partition_of
from engine.ports import Output, Request
from engine.runtime.delivering.attempt import Attempts, Inputs
from engine.runtime.delivering.http import AiohttpSender
from engine.runtime.delivering.intake import Intake
from engine.runtime.delivering.lanes import Lanes
from schemas import headers
from tests.pipeline.world import CODEC, PARTITIONS, Direct, World
from tests.runtime.receiver import LOOPBACK


class Spy:
    """ports.Sender: the real one, and everything that went through it; `changed` may alter a request."""

    def __init__(self) -> None:
        self._sender = self.made()
        self.sent: dict[str, list[Request]] = defaultdict(list)

    def made(self) -> AiohttpSender:
        """The real one, which may go to loopback."""
        return AiohttpSender(LOOPBACK)

    def changed(self, request: Request, number: int) -> Request:
        """What is really sent, for try `number` (from 1) at this URL of this message."""
        return request

    async def send(self, request: Request) -> Answer:
        """Send it."""
        tries = self.sent[f"{request.url} {request.headers['webhook-id']}"]
        tries.append(request)
        return await self._sender.send(self.changed(request, len(tries)))

    async def close(self) -> None:
        """Close idle connections."""
        await self._sender.close()


class Tampering(Spy):
    """Somebody on the way changes one digit of each body."""

    def changed(self, request: Request, number: int) -> Request:
        """The signature stays."""
        return request._replace(body=request.body.replace(b"4242", b"4243"))


class LateSecret(Spy):
    """At the first try the receiver has another secret still."""

    def changed(self, request: Request, number: int) -> Request:
        """Path /1 is the same receiver with that secret."""
        return request._replace(url=request.url.removesuffix("/0") + "/1") if number == 1 else request


class Pipeline(World):
    """A world whose requests are real."""

    def __init__(self, spy: type[Spy], loop: asyncio.AbstractEventLoop) -> None:
        self._spy = spy
        super().__init__(lambda path, seen: Answer(500), loop)
        self.clock.us = time.time_ns() // 1_000

    async def _start_dispatcher(self) -> None:
        self.spy = self._spy()
        direct = Direct()
        self.intake = Intake(self.context(), direct)
        inputs = Inputs(self.intake.processor, self.intake.configuration, self.intake.view)
        attempts = Attempts(self.context(), inputs, self.spy)
        self.lanes = Lanes(self.context(), self.intake.processor, attempts, self.intake.parking)
        direct.lanes, direct.attempts = self.lanes, attempts

    async def _step_dispatcher(self) -> None:
        await super()._step_dispatcher()
        while self.lanes._requests.under_way:  # noqa: ASYNC110  the clock stands still meanwhile
            await asyncio.sleep(0.001)

    def subscribe(self, ports: Mapping[str, int], path: str = "/0") -> None:
        """An endpoint for each receiver, of the profile that its name begins with."""
        for name, port in ports.items():
            url = f"http://127.0.0.1:{port}{path}"
            self.create_endpoint(name, url=url, profile=name.partition("-")[0])
        self.run(1)

    def deliver(self, original: DeliveryScheduled, trigger: Trigger) -> None:
        """What the replayer writes for a resend, or a test send."""
        count = len(self.records("deliveries"))
        delivery = replace(original, delivery_id=f"{trigger}-{count}", trigger=trigger)
        name = delivery.endpoint_id
        found = {
            headers.CAUSE: headers.cause("commands", 0, count),
            headers.DELIVERY: delivery.delivery_id.encode(),
            headers.ATTEMPT: b"1",
            headers.TRIGGER: trigger.encode(),
        }
        value = CODEC.encode(delivery)
        self.log.append(Output("deliveries", partition_of(name, PARTITIONS), name.encode(), value, found))

    def attempted(self, count: int) -> list[AttemptFinished]:
        """All attempts, once there are so many."""
        self.run_until(lambda: len(self.attempts()) >= count, 60)
        return self.attempts()


@contextmanager
def a_pipeline(ports: Mapping[str, int], spy: type[Spy] = Spy, path: str = "/0") -> Iterator[Pipeline]:
    """A pipeline with an endpoint for each receiver, and an event loop of its own."""
    loop = asyncio.new_event_loop()
    try:
        pipeline = Pipeline(spy, loop)
        pipeline.subscribe(ports, path)
        yield pipeline
        loop.run_until_complete(pipeline.spy.close())
    finally:
        loop.close()
