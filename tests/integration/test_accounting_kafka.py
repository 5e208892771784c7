"""Reconcile and the continuous check on a real broker: what only Kafka has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from consumers.accounting import Accounting, Pace
from engine.core.model import AttemptFinished, MessagePublished
from engine.core.routing import delivery_id
from engine.ports import Output
from engine.runtime.accounting.accounts import Accounts
from engine.runtime.accounting.reconcile import Report, Scope, Sources, reconcile
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.vault import AesVault
from engine.runtime.context import Context
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.kafka.client import Cluster
from engine.runtime.settings import Settings
from schemas import headers
from tests.integration.history_fixtures import CODEC, Store, attempt, batch, routing
from tests.integration.scene import waiting

pytestmark = pytest.mark.integration
LIMIT_S = 60.0
SECOND = 1_000_000
MESSAGE = CODEC.encode(MessagePublished("acme", "m0", "room.ended", b"{}", 0))


@dataclass(frozen=True, slots=True)
class Stage:
    """A log of one partition on the broker, and an empty history."""

    settings: Settings
    log: KafkaLog
    store: Store

    @property
    def topic(self) -> str:
        """Full name of `messages`."""
        return self.settings.prefix + "messages"

    def write(self, *outputs: Output) -> None:
        """Append."""
        producer = self.log.producer()
        for output in outputs:
            producer.send(output, lambda _: None)
        assert producer.flush(LIMIT_S)

    def delivery(self, offset: int) -> str:
        """Id of the delivery to ep1."""
        return delivery_id(self.topic, 0, offset, "ep1")

    def route(self, offset: int) -> None:
        """Match the message at an offset with ep1, and schedule its delivery."""
        routed = replace(routing(offset, "ep1"), accepted_at=SystemClock().now())
        self.write(Output("routings", 0, None, CODEC.encode(batch(routed))))
        scheduled = replace(waiting(offset, "ep1", 1), delivery_id=self.delivery(offset))
        found = {headers.DELIVERY: scheduled.delivery_id.encode(), headers.ATTEMPT: b"1"}
        self.write(Output("deliveries", 0, b"ep1", CODEC.encode(scheduled), found))

    def finish(self, offset: int) -> AttemptFinished:
        """Deliver it."""
        done = replace(attempt(offset, "ep1", 1, "delivered"), delivery_id=self.delivery(offset))
        found = headers.of_attempt(done, b"deliveries:0:0")
        self.write(Output("attempts", 0, b"ep1", CODEC.encode(done), found))
        return done

    def reconcile(self, after_s: int) -> Report:
        """Reconcile some seconds from now."""
        reader = self.log.reader()
        try:
            sources = Sources(reader, self.log, Accounts(self.store.history))
            return reconcile(sources, self.settings, Scope(SystemClock().now() + after_s * SECOND))
        finally:
            reader.close()


@pytest.fixture
def stage(kafka: str, prefix: str, store: Store) -> Stage:
    """Topics of one partition."""
    settings = store.settings.model_copy(update={"kafka": kafka, "prefix": prefix, "partitions": 1})
    KafkaAdmin(settings).create()
    return Stage(settings, KafkaLog(settings), store)


def aborted(stage: Stage, count: int) -> None:
    """Write messages in a transaction that is aborted."""
    config = Cluster.of(stage.settings).config(transactional_id=f"{stage.settings.prefix}t", linger_ms=0)
    producer = Producer(config)
    producer.init_transactions(LIMIT_S)
    producer.begin_transaction()
    for _ in range(count):
        producer.produce(stage.topic, MESSAGE, partition=0)
    producer.flush(LIMIT_S)
    producer.abort_transaction(LIMIT_S)


def test_an_aborted_tail_is_no_message(stage: Stage) -> None:
    """Offsets behind the last message that no reader ever sees wait for nobody."""
    stage.write(Output("messages", 0, b"m0", MESSAGE))
    stage.route(0)
    stage.finish(0)
    aborted(stage, 3)
    report = stage.reconcile(0)
    assert (report.unrouted, report.unrouted_late, report.gaps) == (0, 0, {})
    stage.write(Output("messages", 0, b"m1", MESSAGE))
    assert stage.reconcile(0).unrouted == 1


def test_a_late_delivery_is_told_with_where_the_dispatcher_is(stage: Stage) -> None:
    """Not taken in yet: pending, and late all the same."""
    stage.write(Output("messages", 0, b"m0", MESSAGE))
    stage.route(0)
    assert stage.reconcile(0).account.pending == 1
    late = stage.reconcile(600)
    assert late.account.unaccounted == 1
    where = "lies at deliveries/0 offset 0, which the dispatcher has not finished with (it is at 0)"
    assert where in late.lost[0].problem


def test_what_the_retention_took_is_not_held_against_the_rest(stage: Stage) -> None:
    """Attempt 1 is trimmed away: what was accepted before the log's beginning is not judged."""
    for offset in range(2):
        stage.write(Output("messages", 0, b"m", MESSAGE))
        stage.route(offset)
        stage.finish(offset)
    assert stage.reconcile(600).account.matched == 2
    trimmed = TopicPartition(stage.settings.prefix + "attempts", 0, 1)
    admin = AdminClient(Cluster.of(stage.settings).config())
    for future in admin.delete_records([trimmed]).values():
        future.result(LIMIT_S)
    report = stage.reconcile(600)
    assert report.since > 0
    assert (report.account.matched, report.illegal, report.lost) == (0, 0, [])


@pytest.fixture
def check(stage: Stage) -> Iterator[Callable[[str], float]]:
    """The continuous check at a quick pace; a call turns it once and says one figure."""
    context = Context(stage.settings, stage.log, SystemClock(), CODEC, {}, AesVault(bytes(32)), "test")
    pace = Pace(every_s=0.05, grace_us=SECOND)
    accounting = Accounting(context, Accounts(stage.store.history), pace)

    def turn(problem: str) -> float:
        if accounting.begin():
            accounting.step(0.02)
        return REGISTRY.get_sample_value("hooklog_unaccounted", {"problem": problem}) or 0

    yield turn
    accounting.close()


def until(check: Callable[[str], float], problem: str, figure: int) -> None:
    """Turn until the figure is there."""
    deadline = time.monotonic() + LIMIT_S
    while (found := check(problem)) != figure:
        assert time.monotonic() < deadline, f"{problem} is {found}, not {figure}"


def test_the_continuous_check_follows_the_log(stage: Stage, check: Callable[[str], float]) -> None:
    """A dropped delivery, a missing batch at the end, an aborted tail that is none; each heals."""
    until(check, "overdue", 0)
    stage.write(*(Output("messages", 0, b"m", MESSAGE) for _ in range(2)))
    stage.route(0)
    until(check, "overdue", 1)
    until(check, "unrouted", 1)
    stage.finish(0)
    stage.route(1)
    stage.finish(1)
    aborted(stage, 2)
    until(check, "overdue", 0)
    until(check, "unrouted", 0)
    deadline = time.monotonic() + 3  # longer than the grace: the aborted offsets would be late by then
    while time.monotonic() < deadline:
        assert check("unrouted") == 0


def test_the_broker_says_where_a_group_is(stage: Stage) -> None:
    """Commits of others are read without joining their group; None of one that never committed."""
    reader = stage.log.reader()
    at = ("routings", 0)
    assert reader.committed("projector", [at]) == {at: 0}
    assert reader.committed("nobody", [at]) == {at: None}
    member = Consumer(Cluster.of(stage.settings).config(group_id=f"{stage.settings.prefix}nobody"))
    member.commit(offsets=[TopicPartition(f"{stage.settings.prefix}routings", 0, 5)], asynchronous=False)
    assert reader.committed("nobody", [at]) == {at: 5}
    member.close()
    reader.close()
