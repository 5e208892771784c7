"""Another HOOKLOG_TIERS on Kafka: no retry is stranded on a tier that nobody reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from consumers.scheduler import Scheduler
from engine.dev.keys import new_master_key
from engine.ports import LogError, Output, Record
from engine.runtime.context import open_context
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.kafka.client import Cluster
from engine.runtime.settings import Settings, load_settings
from schemas import headers

pytestmark = pytest.mark.integration
LIMIT_S = 240.0
DELIVERY = b"the whole delivery"


@pytest.fixture
def settings(kafka: str, prefix: str) -> Settings:
    """Topics of the ladder 1s, 15s, and of 10s, to which nobody has written."""
    made = load_settings(
        kafka=kafka, prefix=prefix, partitions=2, tiers="1s,15s", master_key=new_master_key()
    )
    KafkaAdmin(made).create()
    KafkaAdmin(changed(made, "1s,10s")).create()
    return made


def changed(settings: Settings, tiers: str, draining: str = "") -> Settings:
    """The same with another ladder."""
    given = settings.model_dump() | {"tiers": tiers, "draining_tiers": draining}
    return Settings.model_validate(given)


def write(log: KafkaLog, topic: str, number: int, found: Mapping[str, bytes]) -> None:
    """A record about a delivery; acknowledged."""
    said = {headers.DELIVERY: b"dlv_%d" % number, headers.ATTEMPT: b"1", **found}
    producer = log.producer()
    producer.send(Output(topic, number % 2, b"ep", DELIVERY, said), lambda offset: None)
    assert producer.flush(LIMIT_S)


def due_in(seconds: float) -> dict[str, bytes]:
    """The header that says so."""
    return {headers.DUE: b"%d" % (time.time_ns() // 1_000 + int(seconds * 1e6))}


def retry_in(seconds: float) -> dict[str, bytes]:
    """Headers of an attempt that is to be followed by another."""
    return {headers.DECISION: b"retry", headers.LENGTH: b"%d" % len(DELIVERY), **due_in(seconds)}


def records(log: KafkaLog, topic: str) -> list[Record]:
    """All of a topic."""
    reader = log.reader()
    try:
        return list(reader.read(reader.starts([(topic, 0), (topic, 1)])))
    finally:
        reader.close()


def work(settings: Settings, is_done: Callable[[], bool]) -> None:
    """Run a scheduler until something is so; then stop it cleanly."""
    scheduler = Scheduler(open_context(settings))
    deadline = time.monotonic() + LIMIT_S
    looked_at = 0.0
    while True:
        scheduler.step()
        assert time.monotonic() < deadline
        if time.monotonic() - looked_at > 0.5:
            looked_at = time.monotonic()
            if is_done():
                break
    scheduler.processor.close()


def test_a_tier_where_retries_wait_is_not_left_behind(settings: Settings) -> None:
    """The start is refused, and told with the topic, how many wait and what to do."""
    for number in range(3):
        write(KafkaLog(settings), "retry.15s", number, due_in(3_600))
    told = rf"{settings.prefix}retry\.15s is no tier of HOOKLOG_TIERS, and 3 records wait .* put 15s back"
    other = changed(settings, "1s,10s")
    with pytest.raises(LogError, match=told):
        open_context(other)
    (said,) = KafkaAdmin(other).check()
    assert "into HOOKLOG_DRAINING_TIERS until none is left" in said
    open_context(settings)
    open_context(changed(settings, "1s,10s", "15s"))


def test_other_topics_are_none_of_ours(settings: Settings) -> None:
    """An empty tier of before is fine, and so is a topic that only looks like one."""
    admin = AdminClient(Cluster.of(settings).config())
    for future in admin.create_topics([NewTopic(f"{settings.prefix}retry.orders", 2, 1)]).values():
        future.result()
    write(KafkaLog(settings), "retry.orders", 0, {})
    assert KafkaAdmin(changed(settings, "1s,10s")).check() == []
    assert KafkaAdmin(settings).check() == []


def test_a_ladder_is_changed_while_retries_wait(settings: Settings) -> None:
    """Old tier drained, new one used, old one gone, and back: the group goes on each time, nothing is lost.

    Each scheduler is the same static member; it must get the partitions of its own ladder.
    """
    log, made = KafkaLog(settings), partial(delivered, KafkaLog(settings))
    write(log, "attempts", 0, retry_in(1))
    work(settings, lambda: made() == [0])
    write(log, "retry.15s", 1, due_in(10))
    after = changed(settings, "1s,10s")
    with pytest.raises(LogError, match=r"retry\.15s is no tier of HOOKLOG_TIERS, and 1 records wait"):
        open_context(after)
    write(log, "attempts", 2, retry_in(45))
    work(changed(settings, "1s,10s", "15s"), lambda: made() == [0, 1] and len(records(log, "retry.10s")) > 0)
    assert KafkaAdmin(after).check() == []
    work(after, lambda: made() == [0, 1, 2])
    assert len(records(log, "retry.15s")) == 1
    write(log, "attempts", 3, retry_in(1))
    work(settings, lambda: made() == [0, 1, 2, 3])


def delivered(log: KafkaLog) -> list[int]:
    """Numbers of the deliveries that are to be attempted again."""
    return sorted(int(r.headers[headers.DELIVERY].removeprefix(b"dlv_")) for r in records(log, "deliveries"))
