"""Broker trouble: work resumes by itself or halts and says why; /readyz tells; nothing is lost in silence.

The groups are processes on a broker of their own. What counts is the log: every message on it is in a
RoutedBatch, and its delivery has an attempt that says delivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from engine.dev.bench.scenario import receiver
from engine.dev.broker import Broker
from engine.dev.process import wait_until
from engine.ports import Output
from engine.runtime.kafka import KafkaLog
from engine.runtime.kafka.client import Cluster
from engine.runtime.kafka.reader import KafkaReader
from engine.runtime.settings import Settings
from tests.integration.groups import LIMIT_S, Groups, loaded

pytestmark = pytest.mark.integration

WORKING = ("control", "router", "dispatcher")
PREFIX = "trouble."


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that these tests may hurt."""
    with Broker(tmp_path_factory.mktemp("broker"), heap_mb=256) as broker:
        yield broker


@pytest.fixture(scope="module")
def groups(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groups]:
    """Groups at work for one endpoint."""
    folder = tmp_path_factory.mktemp("groups")
    groups = Groups(broker.bootstrap, PREFIX, folder)
    with receiver(folder) as url:
        try:
            groups.start(*WORKING)
            groups.create_endpoint(url)
            yield groups
        finally:
            groups.stop()


def test_a_killed_broker_is_waited_for(broker: Broker, groups: Groups) -> None:
    """Away longer than a session: not ready, alive, and on again by itself when it is back.

    What was under way when the broker died may end a process, which then waits at its start: that is as good.
    """
    with loaded(groups):
        wait_for_work(groups)
        before = groups.supervisor.pids()["dispatcher"]
        with away(broker):
            for name in WORKING:
                groups.wait_for(name, 503, "no broker answers")
                wait_for_answer(groups, name, "/healthz", "alive\n")
            wait_for_answer(groups, "router", "/metrics", 'hooklog_broker_up{process="router"} 0.0')
            assert wait_until(lambda: holds_nothing(groups, before), LIMIT_S, 0.1)
        for name in WORKING:
            groups.wait_for(name, 200)
    groups.wait_delivered()


@contextmanager
def away(broker: Broker) -> Iterator[None]:
    """The broker is dead while the block runs, and no longer: the tests that follow need it."""
    broker.kill()
    try:
        yield
    finally:
        broker.start()


def holds_nothing(groups: Groups, before: int) -> bool:
    """The dispatcher has given its partitions up for lost, or is not the process that had them."""
    now = groups.supervisor.pids().get("dispatcher")
    return now != before or "progress.lost" in groups.said("dispatcher")


def wait_for_answer(groups: Groups, name: str, path: str, words: str) -> None:
    """Wait until a probe answers 200 with these words: its process may be starting again just now."""
    said = (0, "")

    def answers() -> bool:
        nonlocal said
        said = groups.probe(name, path)
        return said[0] == 200 and words in said[1]

    assert wait_until(answers, LIMIT_S, 0.1), said


def wait_for_work(groups: Groups) -> None:
    """Wait until something more was delivered."""
    before = len(groups.attempts())
    assert wait_until(lambda: len(groups.attempts()) > before, LIMIT_S, 0.1)


def test_a_restarted_broker_is_no_trouble(broker: Broker, groups: Groups) -> None:
    """A clean restart under load: everybody works again by itself, and nothing is missing."""
    with loaded(groups):
        wait_for_work(groups)
        broker.restart()
        for name in WORKING:
            groups.wait_for(name, 200)
        wait_for_work(groups)
    groups.wait_delivered()


class SecondBroker(Broker):
    """Joins the cluster of a first one as node 2."""

    def __init__(self, first: Broker, folder: Path) -> None:
        super().__init__(folder, heap_mb=256)
        self._first = first

    def _write_configuration(self) -> None:
        super()._write_configuration()
        given = (self._first.folder / "server.properties").read_text()
        voters = re.findall(r"^controller.quorum.voters=.*", given, re.MULTILINE)
        own = [
            *(line for line in self._properties.read_text().splitlines() if not line.startswith(FIRST_ONLY)),
            "process.roles=broker",
            "node.id=2",
            f"listeners=PLAINTEXT://{self.bootstrap}",
            *voters,
        ]
        self._properties.write_text("\n".join(own))

    def _cluster_id(self) -> str:
        kept = (self._first.folder / "data" / "meta.properties").read_text()
        return str(re.findall(r"^cluster.id=(.*)", kept, re.MULTILINE)[0])


FIRST_ONLY = ("process.roles=", "node.id=", "listeners=", "controller.quorum.voters=")


def test_refused_writes_are_told_and_repeated(tmp_path: Path) -> None:
    """Fewer replicas in sync than asked for: not ready, with the reason; then all is written, once."""
    with (
        Broker(tmp_path / "one", heap_mb=256) as broker,
        SecondBroker(broker, tmp_path / "two") as second,
    ):
        settings = Settings(kafka=broker.bootstrap, prefix="isr.", partitions=1)
        both = NewTopic("isr.deliveries", 1, 2, config={"min.insync.replicas": "2"})
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        assert wait_until(lambda: len(admin.list_topics(timeout=5).brokers) == 2, LIMIT_S)
        admin.create_topics([both])["isr.deliveries"].result(LIMIT_S)
        log = KafkaLog(settings)
        producer, acknowledged = log.producer(), list[int]()
        producer.send(numbered(0), acknowledged.append)
        assert producer.flush(LIMIT_S)
        second.kill()

        def refused() -> bool:
            producer.send(numbered(len(acknowledged) + len(producer)), acknowledged.append)
            producer.poll(0.1)
            return "no output acknowledged for" in log.state().trouble

        assert wait_until(refused, LIMIT_S)
        assert wait_until(log.answers, LIMIT_S)
        second.start()
        assert producer.flush(LIMIT_S)
        assert wait_until(lambda: log.state().trouble == "", LIMIT_S), log.state().trouble
        reader = KafkaReader(Cluster.of(settings))
        values = [int(record.value or b"") for record in reader.read({("deliveries", 0): 0})]
        reader.close()
        assert values == list(range(len(acknowledged)))


def numbered(number: int) -> Output:
    """An output that can be told from others."""
    return Output("deliveries", 0, b"key", b"%d" % number)


def test_a_fenced_control_starts_again(groups: Groups) -> None:
    """Its transactional name is taken: it halts at its next command, says why, and decides it then."""
    groups.wait_for("control", 200)
    before = groups.supervisor.pids()["control"]
    groups.log.transactions("control-0")
    groups.create_endpoint("http://127.0.0.1:9/never", "ep_fenced")
    halted(groups, "control", "HOOKLOG_INSTANCE")
    assert groups.supervisor.pids()["control"] != before
    assert sum(record.key == b"ep_fenced" for record in groups.records("endpoints")) == 1


def halted(groups: Groups, name: str, *words: str) -> None:
    """Wait until a process says that it halts, in these words."""

    def said() -> bool:
        lines = [line for line in groups.said(name).splitlines() if "group.halted" in line]
        return any(all(word in line for word in words) for line in lines)

    assert wait_until(said, LIMIT_S, 0.1), groups.said(name)[-2_000:]


def test_a_trimmed_topic_halts_its_group(groups: Groups) -> None:
    """Nothing is skipped in silence: the reason names partition and the command that would skip it."""
    groups.wait_delivered()
    groups.stop("router")
    with loaded(groups, 200) as load:
        assert wait_until(lambda: load.acknowledged > 50, LIMIT_S)
    reader = groups.log.reader()
    messages = [("messages", n) for n in range(groups.settings.partitions)]
    ends = reader.ends(messages)
    reader.close()
    trimmed = groups.admin.delete_records(
        [TopicPartition(PREFIX + t, n, end) for (t, n), end in ends.items()]
    )
    for future in trimmed.values():
        future.result(LIMIT_S)
    groups.launch("router")
    halted(groups, "router", f"{PREFIX}messages", f"--group {PREFIX}router")
    groups.stop("router")
    assert wait_until(lambda: reset(groups, ends), LIMIT_S, 0.2)
    groups.start("router")
    with loaded(groups):
        wait_for_work(groups)
    groups.wait_delivered()


def reset(groups: Groups, offsets: Mapping[tuple[str, int], int]) -> bool:
    """Do what the reason says: set the group's offsets; False while its last member is still counted."""
    full = Cluster.of(groups.settings)
    tool = Consumer({"bootstrap.servers": groups.settings.kafka, "group.id": full.full("router")})
    try:
        tool.commit(offsets=[full.at(at, offset) for at, offset in offsets.items()], asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:
            raise
        return False
    finally:
        tool.close()
    return True


def test_a_deleted_topic_halts_its_group(groups: Groups) -> None:
    """It halts rather than own nothing for ever, and does not start until the topic is there."""
    groups.admin.delete_topics([PREFIX + "deliveries"])[PREFIX + "deliveries"].result(LIMIT_S)
    with loaded(groups):
        halted(groups, "router", f"{PREFIX}deliveries")
    refused = f"topic {PREFIX}deliveries is missing: run `hooklog topics create`"
    assert wait_until(lambda: refused in groups.said("router"), LIMIT_S, 0.1)
