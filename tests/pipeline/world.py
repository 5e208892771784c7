"""A whole pipeline on the log in memory, with a clock that is moved by hand and groups that can be killed."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from consumers.control import Control
from consumers.health import Health
from consumers.replayer import Replayer
from consumers.router import Router
from consumers.scheduler import Scheduler
from engine.core.change import CreateEndpoint, EndpointSettings, SealedSecret
from engine.core.model import Answer, AttemptFinished, DeliveryScheduled, MessagePublished, RoutedBatch
from engine.core.routing import partition_of
from engine.ports import Output, Record, Request
from engine.runtime.configuration.profiles import load_profiles
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring
from engine.runtime.context import Context
from engine.runtime.delivering.attempt import Attempts, Inputs
from engine.runtime.delivering.intake import Intake
from engine.runtime.delivering.lanes import Lanes
from engine.runtime.memory import MemoryConsumer, MemoryLog
from engine.runtime.settings import Settings
from schemas.codec import Codec

PARTITIONS = 2
TIERS = ("1s", "2s", "4s")
TENANT = "acme"
POISON = b"poison"
ANSWER_US = 250_000
"""How long a receiver takes to answer."""
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
CODEC = Codec()
PROFILES = load_profiles(None)
VAULT = AesVault(bytes(32))
TOPICS = ("messages", "routings", "deliveries", "attempts", "dead-letters", "invalid", "changes", "endpoints")
GROUPS = ("control", "router", "dispatcher", "scheduler", "health", "replayer")


class ManualClock:
    """ports.Clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.us = 1_760_000_000_000_000

    def now(self) -> int:
        """Microseconds."""
        return self.us

    def monotonic(self) -> float:
        """Seconds."""
        return self.us / 1e6


class NoWait(threading.Condition):
    """Polls return at once: whoever waits would wait for this very thread."""

    def wait(self, timeout: float | None = None) -> bool:
        """Nothing will come."""
        return False


Receiver = Callable[[str, int], Answer]
"""(path, how often this message was seen at it before) -> answer."""


class ScriptedSender:
    """ports.Sender: answers what the receiver says; remembers every request."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.in_flight = 0

    async def send(self, request: Request) -> Answer:
        """The request is seen, and answered when the clock has moved."""
        self._world.requests.append((self._world.clock.now(), request))
        key = (request.url, request.headers["webhook-id"])
        seen = self._world.seen[key]
        self._world.seen[key] += 1
        self._world.requested_at.append((key, self._world.clock.now()))
        self.in_flight += 1
        answered_at = self._world.clock.now() + self._world.answer_us(request.headers["webhook-id"])
        while self._world.clock.now() < answered_at:  # noqa: ASYNC110  the clock moves by hand
            await asyncio.sleep(0)
        self.in_flight -= 1
        answer = self._world.receiver(request.url.rpartition("/")[2], seen)
        return Answer(
            answer.status_code, answer.headers, b"", answer.error_class, "", self._world.clock.now(), 1
        )

    async def close(self) -> None:
        """Nothing to close."""


class Direct:
    """Passes on at once what the thread that polls says: here there is one thread."""

    lanes: Lanes
    attempts: Attempts

    def changed(self, endpoint_ids: Collection[str]) -> None:
        """The view has other snapshots of these endpoints."""
        self.attempts.forget(endpoint_ids)
        self.lanes.changed(endpoint_ids)

    @property
    def drained_left(self) -> int:
        """Drained deliveries that have left their lanes."""
        return self.lanes.places.drained_left

    @property
    def drained_bytes_left(self) -> int:
        """The same in bytes."""
        return self.lanes.places.drained_bytes_left

    def __getattr__(self, name: str) -> Callable[..., None]:
        found: Callable[..., None] = getattr(self.lanes, name)
        return found


class World:
    """The log, the clock, and one process of each group."""

    def __init__(self, receiver: Receiver, loop: asyncio.AbstractEventLoop, **settings: object) -> None:
        self.receiver = receiver
        self.answer_us: Callable[[str], int] = lambda message: ANSWER_US
        self.clock = ManualClock()
        self.log = MemoryLog(PARTITIONS, self.clock)
        self.log.changed = NoWait(threading.RLock())
        chosen: dict[str, Any] = {"partitions": PARTITIONS, "tiers": TIERS, **settings}
        self.settings = Settings(**chosen)
        self.is_asking = True
        """Whether the dispatcher asks how complete its view is."""
        self.seen: Counter[tuple[str, str]] = Counter()
        self.requests: list[tuple[int, Request]] = []
        self.requested_at: list[tuple[tuple[str, str], int]] = []
        self.killed_in_flight = 0
        self._loop = loop
        self._producer = self.log.producer()
        for group in GROUPS:
            self.start(group)

    def context(self) -> Context:
        """What a group is given."""
        return Context(self.settings, self.log, self.clock, CODEC, PROFILES, VAULT, "test")

    # -- groups ------------------------------------------------------------------------

    def start(self, group: str) -> None:
        """Start a process of a group."""
        match group:
            case "control":
                self.control = Control(self.context())
            case "router":
                self.router = Router(self.context())
            case "scheduler":
                self.scheduler = Scheduler(self.context())
            case "health":
                self.health = Health(self.context())
            case "replayer":
                self.replayer = Replayer(self.context())
            case "dispatcher":
                self._loop.run_until_complete(self._start_dispatcher())

    async def _start_dispatcher(self) -> None:
        self.sender = ScriptedSender(self)
        direct = Direct()
        self.intake = Intake(self.context(), direct)
        inputs = Inputs(self.intake.processor, self.intake.configuration, self.intake.view)
        attempts = Attempts(self.context(), inputs, self.sender)
        self.lanes = Lanes(self.context(), self.intake.processor, attempts, self.intake.parking)
        direct.lanes, direct.attempts = self.lanes, attempts

    def kill(self, group: str) -> None:
        """SIGKILL, and a new process: nothing is drained, acknowledged or committed."""
        if group == "dispatcher":
            self.killed_in_flight += len(self.lanes._requests.under_way) + len(self.intake.processor.producer)
            self._loop.run_until_complete(self._abandon())
        consumer = {
            "control": lambda: self.control.member.consumer,
            "router": lambda: self.router.processor.consumer,
            "dispatcher": lambda: self.intake.processor.consumer,
            "scheduler": lambda: self.scheduler.processor.consumer,
            "health": lambda: self.health.member.consumer,
            "replayer": lambda: self.replayer.processor.consumer,
        }[group]()
        assert isinstance(consumer, MemoryConsumer)
        consumer.kill()
        self.start(group)

    async def _abandon(self) -> None:
        tasks = list(self.lanes._requests.under_way)
        for task in tasks:
            task.remove_done_callback(self.lanes._requests.ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def change_ladder(self, tiers: tuple[str, ...], draining: tuple[str, ...]) -> None:
        """Another HOOKLOG_TIERS: the scheduler is killed, and started with it."""
        self.settings = self.settings.model_copy(update={"tiers": tiers, "draining_tiers": draining})
        self.kill("scheduler")

    def step(self, group: str) -> None:
        """One turn of a group's loop."""
        match group:
            case "control":
                self.control.step(0)
            case "router":
                self.router.step()
            case "scheduler":
                self.scheduler.step()
            case "health":
                self.health.step(0)
            case "replayer":
                self.replayer.step()
            case "dispatcher":
                self._loop.run_until_complete(self._step_dispatcher())

    async def _step_dispatcher(self) -> None:
        assert self.intake.view.freshness is not None
        if self.is_asking:
            self.intake.view.freshness.ask()
        self.intake.step(full=False)
        self.lanes.pump()
        await asyncio.sleep(0)
        if self.lanes.failed.done():
            self.lanes.failed.result()

    def run(self, seconds: float) -> None:
        """Let everything work for some time."""
        for _ in range(int(seconds * 4)):
            for group in GROUPS:
                for _ in range(4):
                    self.step(group)
            self.clock.us += 250_000

    # -- what producers and people do --------------------------------------------------

    def run_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Let everything work until something is so; AssertionError if it takes longer."""
        for _ in range(int(seconds)):
            if condition():
                return
            self.run(1)
        assert condition()

    def append(self, topic: str, key: str, record: object) -> int:
        """Write a record; its offset."""
        value = CODEC.encode(record)
        return self.log.append(Output(topic, partition_of(key, PARTITIONS), key.encode(), value))

    def create_endpoint(
        self,
        name: str,
        event_types: tuple[str, ...] | None = None,
        *,
        tenant: str = TENANT,
        **settings: object,
    ) -> None:
        """Ask control for an endpoint whose receiver is /name."""
        empty = SealedSecret(1, COMMAND_KEY_ID, b"", b"")
        sealed = Keyring(VAULT).seal(COMMAND_KEY_ID, (tenant, name), empty, SECRET)
        given = EndpointSettings(f"http://127.0.0.1/{name}", event_types, retry_policy=(1_000, 3_000))
        wanted = replace(given, **settings)  # type: ignore[arg-type]
        command = CreateEndpoint(f"create-{name}", tenant, "test", 0, name, wanted, True, sealed)
        self.append("commands", tenant, command)

    def publish(self, message_id: str, event_type: str = "room.ended", payload: bytes = b"{}") -> int:
        """Publish a message."""
        message = MessagePublished(TENANT, message_id, event_type, payload, self.clock.now())
        return self.append("messages", message_id, message)

    # -- what the log says -------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """All records of a topic."""
        return [record for n in range(PARTITIONS) for record in self.log.records((topic, n))]

    def attempts(self) -> list[AttemptFinished]:
        """The attempts that count: the first record of each (delivery, attempt)."""
        first: dict[tuple[str, int], AttemptFinished] = {}
        ours = [record for record in self.records("attempts") if record.value != POISON]
        for record in ours:
            attempt = CODEC.decode_as(AttemptFinished, record.value)
            first.setdefault((attempt.delivery_id, attempt.attempt), attempt)
        return list(first.values())

    def deliveries(self) -> list[DeliveryScheduled]:
        """Everything that was ever on `deliveries`."""
        return [CODEC.decode_as(DeliveryScheduled, record.value) for record in self.records("deliveries")]

    def batches(self) -> list[RoutedBatch]:
        """Every RoutedBatch."""
        found = (CODEC.decode(record.value) for record in self.records("routings"))
        return [each for each in found if isinstance(each, RoutedBatch)]


@contextmanager
def a_world(receiver: Receiver, **settings: object) -> Iterator[World]:
    """A world with an event loop of its own."""
    loop = asyncio.new_event_loop()
    try:
        world = World(receiver, loop, **settings)
        yield world
        loop.run_until_complete(world._abandon())
    finally:
        loop.close()
