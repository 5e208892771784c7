"""The health group on a log in memory: several processes, a clock moved by hand, crashes at a transaction."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from consumers.health import Health
from engine.core.change import DisableEndpoint, EndpointDisabled, EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.health import EndpointHealth
from engine.core.model import AttemptFinished, Decision, Trigger
from engine.core.notice import Notice
from engine.core.routing import partition_of
from engine.ports import Consumer, Output, Position, Rebalance, Record, TopicPartition
from engine.runtime.context import Context
from engine.runtime.memory import MemoryConsumer, MemoryLog, MemoryTransactions
from engine.runtime.settings import Settings
from schemas import headers
from tests.pipeline.world import CODEC, PARTITIONS, PROFILES, TENANT, VAULT, ManualClock, NoWait

HOUR_US = 3_600_000_000


class Crash(Exception):  # noqa: N818  not an error of the product
    """A process ends here."""


class CrashingLog(MemoryLog):
    """A log whose next transaction ends the process that writes it, before or after it is committed."""

    crash: str = ""
    """`before`, `after`, or empty."""

    def transactions(self, name: str) -> CrashingTransactions:
        """Write transactions as `name`."""
        transactions = CrashingTransactions(self, name)
        self._owners[name] = transactions
        return transactions

    refuses_commits = False
    """Whether commits that nobody waits for come to nothing, as while the broker is away."""

    def consumer(
        self, group: str, topics: Sequence[str], rebalance: Rebalance, *, patience_ms: int = 0
    ) -> MemoryConsumer:
        """Join a group."""
        partitions = [(topic, n) for topic in topics for n in range(PARTITIONS)]
        return RefusedConsumer(self, self._groups[group], partitions, rebalance)


class RefusedConsumer(MemoryConsumer):
    """Its commits may be refused."""

    def commit(self, positions: Mapping[TopicPartition, Position], *, wait: bool) -> None:
        """Commit, or not."""
        assert isinstance(self._log, CrashingLog)
        if wait or not self._log.refuses_commits:
            super().commit(positions, wait=wait)


class CrashingTransactions(MemoryTransactions):
    """Crashes when its log says so."""

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """All, nothing, or one of them and the end."""
        assert isinstance(self._log, CrashingLog)
        when, self._log.crash = self._log.crash, ""
        if when == "before":
            raise Crash
        super().write(outputs, consumed, consumer)
        if when == "after":
            raise Crash


class Scene:
    """The log, the clock, and the group's processes by name."""

    def __init__(self, processes: int = 1, **settings: object) -> None:
        self.clock = ManualClock()
        self.log = CrashingLog(PARTITIONS, self.clock)
        self.log.changed = NoWait(threading.RLock())
        self.settings = Settings(partitions=PARTITIONS, **settings)  # type: ignore[arg-type]
        self.members: dict[str, Health] = {}
        self._numbers = 0
        for number in range(processes):
            self.start(str(number))

    def context(self, instance: str = "0") -> Context:
        """What a process is given."""
        settings = self.settings.model_copy(update={"instance": instance})
        return Context(settings, self.log, self.clock, CODEC, PROFILES, VAULT, "test")

    # -- processes ---------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process."""
        self.members[name] = Health(self.context(name))

    def kill(self, name: str) -> None:
        """SIGKILL, and a new process."""
        consumer = self.members[name].member.consumer
        assert isinstance(consumer, MemoryConsumer)
        consumer.kill()
        self.start(name)

    def step(self, name: str) -> None:
        """One turn of a process, or its end in the midst of one."""
        try:
            self.members[name].step(0)
        except Crash:
            self.kill(name)

    def settle(self, hours: float = 0.0) -> None:
        """Let everybody work, then some time pass, then work again."""
        for _ in range(3):
            for name in self.members:
                self.step(name)
            self.clock.us += 1_000_000
        if hours:
            self.clock.us += int(hours * HOUR_US)
            self.settle()

    # -- what happens ------------------------------------------------------------------

    def append(self, topic: str, key: str, value: object, **found: bytes) -> int:
        """Write a record to the partition of its key."""
        partition = partition_of(key, PARTITIONS)
        return self.log.append(Output(topic, partition, key.encode(), CODEC.encode(value), found))

    def endpoint(self, name: str, version: int = 1, **changes: object) -> None:
        """Say on `endpoints` what an endpoint is like now."""
        settings = EndpointSettings(f"https://hooks.example.com/{name}")
        endpoint = replace(Endpoint(name, TENANT, settings, version=version), **changes)  # type: ignore[arg-type]
        self.append("endpoints", TENANT, endpoint)

    def disabled(self, name: str, version: int, actor: str = "health", reason: str = "gone") -> None:
        """Say on `changes` that an endpoint was disabled."""
        fact = EndpointDisabled("c", TENANT, actor, self.clock.now(), name, version, reason)
        self.append("changes", TENANT, fact)

    def attempt(
        self,
        name: str,
        decision: Decision,
        *,
        version: int = 1,
        trigger: Trigger = "scheduled",
        copies: int = 1,
    ) -> None:
        """Finish an attempt now: a failed one was answered by 503."""
        self._numbers += 1
        is_success = decision == "delivered"
        attempt = AttemptFinished(
            delivery_id=f"d_{self._numbers}",
            tenant=TENANT,
            endpoint_id=name,
            message_id=f"m_{self._numbers}",
            event_type="x",
            attempt=1,
            trigger=trigger,
            origin="",
            accepted_at=self.clock.now() - HOUR_US,
            source_partition=0,
            source_offset=0,
            attempted_at=self.clock.now(),
            duration_us=0,
            outcome="success" if is_success else "failure",
            status_code=200 if is_success else 503,
            error_class="" if is_success else "http_5xx",
            error="",
            decision=decision,
            reason="",
            retry_at=0,
            request_bytes=100,
            response_body=b"",
            worker="test",
            endpoint_version=version,
            delivery=b"",
        )
        found = headers.of_attempt(attempt, headers.cause("deliveries", 0, self._numbers))
        for _ in range(copies):
            self.append("attempts", name, attempt, **found)

    # -- what follows ------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """Everything on a topic."""
        return [record for n in range(PARTITIONS) for record in self.log.records((topic, n))]

    def notices(self) -> list[Notice]:
        """Everything people are told, in order of time."""
        found = [CODEC.decode_as(Notice, record.value) for record in self.records("notices")]
        return sorted(found, key=lambda notice: notice.at)

    def kinds(self) -> list[str]:
        """What they are told, in short."""
        return [notice.kind for notice in self.notices()]

    def commands(self) -> list[DisableEndpoint]:
        """Everything that was asked for."""
        return [CODEC.decode_as(DisableEndpoint, record.value) for record in self.records("commands")]

    def snapshots(self) -> dict[str, EndpointHealth]:
        """What `health` says now."""
        latest = {(record.key or b"").decode(): record.value for record in self.records("health")}
        return {
            name: CODEC.decode_as(EndpointHealth, value)
            for name, value in latest.items()
            if value is not None
        }
