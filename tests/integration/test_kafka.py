"""The log on Kafka: what it refuses, what it says of errors, and that it never waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from engine.dev.process import free_port, wait_until
from engine.dev.supervisor import http_ready
from engine.ports import LogError, Output, Position, QueueFullError, TopicPartition
from engine.runtime.context import open_context
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.kafka.check import configuration
from engine.runtime.kafka.client import Cluster
from engine.runtime.kafka.consumer import KafkaConsumer
from engine.runtime.kafka.reader import between
from engine.runtime.settings import Settings
from engine.runtime.topics import catalogue

LIMIT_S = 60.0


@pytest.fixture
def settings(kafka: str, prefix: str) -> Settings:
    """Settings whose topics exist."""
    settings = Settings(kafka=kafka, prefix=prefix, partitions=2)
    KafkaAdmin(settings).create()
    return settings


class Owner:
    """ports.Rebalance that starts at 0."""

    def __init__(self, log: KafkaLog) -> None:
        self.owned: list[TopicPartition] = []
        self.consumer: KafkaConsumer = log.consumer("control", ["commands"], self)

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start at 0."""
        self.owned += partitions
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is under way."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is under way."""

    def joined(self) -> Owner:
        """Poll until both partitions are owned."""
        deadline = time.monotonic() + LIMIT_S
        while len(self.owned) < 2:
            assert time.monotonic() < deadline
            self.consumer.poll(0.05, 10)
        return self


def alter(settings: Settings, topic: str, name: str, value: str) -> None:
    """Change a topic's configuration."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.prefix + topic, incremental_configs=[entry])
    admin = AdminClient(Cluster.of(settings).config())
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


# -- topics -----------------------------------------------------------------------------


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_an_acknowledged_record_outlives_a_broker(replication: int, in_sync: str) -> None:
    """All replicas but one must have it, and never none."""
    settings = Settings(replication=replication)
    found = {configuration(spec, settings)["min.insync.replicas"] for spec in catalogue(settings)}
    assert found == {in_sync}


@pytest.mark.integration
def test_created_topics_are_as_they_must_be(settings: Settings) -> None:
    """Create makes what check asks for; a longer retention than asked for is no fault."""
    alter(settings, "messages", "retention.ms", "-1")
    assert KafkaAdmin(settings).check() == []
    KafkaLog(settings).check()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("topic", "name", "value"),
    [
        ("deliveries", "message.timestamp.type", "CreateTime"),
        ("endpoints", "cleanup.policy", "delete"),
        ("attempts", "max.message.bytes", "1000"),
    ],
)
def test_a_wrong_topic_refuses_to_start(settings: Settings, topic: str, name: str, value: str) -> None:
    """The error names topic and setting; nothing runs on such a log."""
    alter(settings, topic, name, value)
    with pytest.raises(LogError, match=f"{topic} has {name}={value}"):
        open_context(settings)


@pytest.mark.integration
def test_another_number_of_partitions_refuses_to_start(settings: Settings) -> None:
    """Outputs name their partition: it must mean the same to everybody."""
    with pytest.raises(LogError, match="has 2 partitions, HOOKLOG_PARTITIONS says 3"):
        open_context(settings.model_copy(update={"partitions": 3}))


@pytest.mark.integration
def test_missing_topics_refuse_to_start(kafka: str, prefix: str) -> None:
    """The error says what to do."""
    with pytest.raises(LogError, match=r"messages is missing: run `hooklog topics create`"):
        open_context(Settings(kafka=kafka, prefix=prefix))


@pytest.mark.integration
def test_less_than_was_asked_for_is_told(settings: Settings) -> None:
    """Replicas and retention are an operator's decision: told by check, no reason to stand still."""
    alter(settings, "messages", "retention.ms", "1000")
    wanted = settings.model_copy(update={"replication": 3})
    wrong = KafkaAdmin(wanted).check()
    assert sum("messages has retention.ms=1000, must have at least" in line for line in wrong) == 1
    assert sum("has 1 replicas, HOOKLOG_REPLICATION says 3" in line for line in wrong) == len(
        catalogue(wanted)
    )
    assert sum("has min.insync.replicas=1, must have at least 2" in line for line in wrong) == len(
        catalogue(wanted)
    )
    KafkaLog(wanted).check()


@pytest.mark.integration
def test_a_wrong_option_is_told_without_its_value(kafka: str) -> None:
    """The client library refuses it; the command line tells it in one line."""
    options = {"kafka": kafka, "kafka_options": "sasl.passwort=canary-in-a-coal-mine"}
    with pytest.raises(LogError, match="HOOKLOG_KAFKA_OPTIONS is wrong") as refused:
        KafkaLog(Settings.model_validate(options))
    assert "canary" not in str(refused.value)


# -- reading and writing ----------------------------------------------------------------


@pytest.mark.integration
def test_a_transactions_end_is_reached(settings: Settings) -> None:
    """A marker takes an offset and is no record: who waited for one there would end with an error."""
    log = KafkaLog(settings)
    owner = Owner(log).joined()
    log.transactions("control-0").write([Output("changes", 0, b"k", b"fact")], {}, owner.consumer)
    reader = log.reader()
    assert reader.ends([("changes", 0)]) == {("changes", 0): 2}
    assert [record.value for record in reader.read({("changes", 0): 0})] == [b"fact"]
    assert list(reader.read({("changes", 0): 1})) == []
    reader.close()
    owner.consumer.close()


@pytest.mark.integration
def test_reading_does_not_wait_for_ever(settings: Settings) -> None:
    """When nothing comes of a partition an error says of which."""
    cluster = Cluster.of(settings)
    consumer = Consumer(cluster.reader_config())
    nowhere = ("nowhere", 0)
    with pytest.raises(LogError, match=r"nothing could be read of .'nowhere', 0. for 0.3 s"):
        list(between(consumer, cluster, {nowhere: 0}, {nowhere: 1}, 0.3))
    consumer.close()


@pytest.mark.integration
def test_a_full_queue_refuses(settings: Settings) -> None:
    """No waiting, no callback within `send`; once acknowledgements were polled there is room again."""
    producer = KafkaLog(settings).producer()
    offsets: list[int] = []
    output = Output("messages", 0, b"key", bytes(1 << 20))

    def send_many() -> None:
        for _ in range(1_000):
            producer.send(output, offsets.append)

    with pytest.raises(QueueFullError, match="records wait for Kafka's acknowledgement"):
        send_many()
    assert offsets == []
    assert len(producer) > 100
    assert producer.flush(LIMIT_S)
    producer.send(output, offsets.append)
    assert producer.flush(LIMIT_S)


@pytest.mark.integration
def test_a_record_over_the_limit_is_an_error_of_the_log(settings: Settings) -> None:
    """Nothing of the client library crosses the port."""
    producer = KafkaLog(settings).producer()
    with pytest.raises(LogError, match=r"a record for .*messages was refused"):
        producer.send(Output("messages", 0, b"key", bytes(3 << 20)), lambda offset: None)


@pytest.mark.integration
def test_refused_commits_do_not_age_the_lease(settings: Settings) -> None:
    """Neither one that raises nor one whose answer is no shifts the commits after it."""
    owner = Owner(KafkaLog(settings)).joined()
    at = owner.owned[0]
    with pytest.raises(LogError, match="a commit was refused"):
        owner.consumer.commit({at: Position(0, "9" * 5_000)}, wait=True)
    owner.consumer.commit({at: Position(0, "9" * 5_000)}, wait=False)
    before = time.monotonic()
    assert owner.consumer.lease < before
    owner.consumer.commit({at: Position(0, "")}, wait=False)
    deadline = before + LIMIT_S
    while owner.consumer.lease < before:
        assert time.monotonic() < deadline
        owner.consumer.poll(0.05, 10)
    owner.consumer.close()


@pytest.mark.integration
def test_a_second_process_of_one_instance(settings: Settings) -> None:
    """The first one ends, and its error says which setting is wrong."""
    first = Owner(KafkaLog(settings)).joined()
    second = Owner(KafkaLog(settings))

    def poll_both() -> None:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            second.consumer.poll(0.05, 10)
            first.consumer.poll(0.05, 10)

    with pytest.raises(LogError, match="same HOOKLOG_INSTANCE: give each process of a group its own"):
        poll_both()
    second.consumer.close()


# -- without a broker -------------------------------------------------------------------


def router(wait_s: float, metrics_port: int = 0) -> subprocess.Popen[str]:
    """`hooklog run router` with nothing at its broker's address."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLOG_")}
    env |= {"HOOKLOG_KAFKA": f"127.0.0.1:{free_port()}", "HOOKLOG_KAFKA_WAIT_S": str(wait_s)}
    env["HOOKLOG_METRICS_PORT"] = str(metrics_port)
    argv = [sys.executable, "-m", "engine.cli.main", "run", "router"]
    root = Path(__file__).parents[2]
    return subprocess.Popen(argv, env=env, cwd=root, stderr=subprocess.PIPE, text=True)


def test_a_signal_ends_the_wait_for_the_broker() -> None:
    """At SIGTERM, long before the wait would end, with nothing left behind."""
    port = free_port()
    with router(3_600, port) as process:
        try:
            assert wait_until(lambda: http_ready(f"http://127.0.0.1:{port}/healthz"), LIMIT_S)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


def test_the_wait_for_the_broker_ends() -> None:
    """Exit status 3 and one line that says which setting to look at."""
    with router(0.5) as process:
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 3
        assert said.splitlines()[-1].endswith("within 0.5 s: set HOOKLOG_KAFKA")
