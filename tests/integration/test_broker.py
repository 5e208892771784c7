"""The embedded broker: real Kafka, survives crashes, never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from engine.dev import jars
from engine.dev.broker import Broker, BrokerError, answers, java_path, keep, new_cluster_id, start_cache
from engine.dev.process import wait_until

pytestmark = pytest.mark.integration
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that these tests may kill."""
    with Broker(tmp_path_factory.mktemp("broker"), heap_mb=256) as broker:
        yield broker


def create(broker: Broker, topic: str) -> None:
    """Create a topic of one partition."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(LIMIT_S)


def write(broker: Broker, topic: str, value: bytes) -> None:
    """Write one record and wait until it is acknowledged."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all", "message.max.bytes": 2 << 20})
    errors: list[object] = []
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(LIMIT_S) == 0
    assert errors == [None]


def read(broker: Broker, topic: str) -> list[tuple[bytes, int]]:
    """Values and timestamp types of all that is in the topic."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "none", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while (message := consumer.poll(LIMIT_S)) is not None:
        error = message.error()
        if error is None:
            found.append((message.value() or b"", message.timestamp()[0]))
        elif error.code() == KafkaError._PARTITION_EOF:
            break
    consumer.close()
    return found


def test_append_time_and_large_records(broker: Broker) -> None:
    """Records carry the broker's append time, and a record of 1.5 MiB is accepted."""
    create(broker, "large")
    write(broker, "large", b"x" * (3 << 19))
    assert read(broker, "large") == [(b"x" * (3 << 19), TIMESTAMP_LOG_APPEND_TIME)]


def test_no_topic_by_accident(broker: Broker) -> None:
    """Asking for a topic that nobody created does not create it."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.list_topics("typo", timeout=10)
    assert "typo" not in admin.list_topics(timeout=10).topics


def test_survives_kill_and_restart(broker: Broker) -> None:
    """After SIGKILL, and after a clean restart, the same address has the same records."""
    create(broker, "kept")
    write(broker, "kept", b"1")
    address, first = broker.bootstrap, broker.pid
    broker.kill()
    assert broker.pid is None
    broker.start()
    write(broker, "kept", b"2")
    broker.restart()
    assert broker.pid != first
    assert broker.bootstrap == address
    assert [value for value, _ in read(broker, "kept")] == [b"1", b"2"]


def test_group_protocol_consumer(broker: Broker) -> None:
    """Groups of the consumer protocol (KIP-848) are on."""
    create(broker, "kip848")
    write(broker, "kip848", b"x")
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "g",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["kip848"])
    values: list[bytes | None] = []

    def has_come() -> bool:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            values.append(message.value())
        return bool(values)

    assert wait_until(has_come, LIMIT_S, 0)
    consumer.close()
    assert values == [b"x"]


def test_port_in_use(tmp_path: Path) -> None:
    """A port that somebody listens at is named, with the option that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is in use.*--kafka-port"):
            Broker(tmp_path, port).start()


def test_second_broker_on_one_folder(broker: Broker) -> None:
    """A second broker on the same data refuses to start, shows why, and leaves the first one alone."""
    with pytest.raises(BrokerError, match=r"(?i)lock"):
        Broker(broker.folder).start()
    assert answers(broker.port)


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """A broker whose parent is killed is killed too, whatever thread started it."""
    script = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from engine.dev.broker import Broker\n"
        "broker = Broker(Path(sys.argv[1]), heap_mb=256)\n"
        "thread = threading.Thread(target=broker.start)\n"
        "thread.start(); thread.join()\n"
        "print(broker.pid, broker.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, port = map(int, parent.stdout.readline().split())
        assert answers(port)
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not alive(pid), LIMIT_S)


def alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_cluster_id_is_no_option() -> None:
    """One in 64 random ids begins with '-', and the formatting tool would refuse it."""
    ids = {new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(each) == 22 and not each.startswith("-") for each in ids)


def test_java_starts_from_what_it_kept(tmp_path: Path) -> None:
    """Told that it must, Java takes its classes from the cache; it refuses one of other jars."""
    java, *options = Broker(tmp_path).prepare()
    must = [java, "-XX:AOTMode=on", *options[:-2], "-version"]
    assert any(option.startswith("-XX:AOTCache=") for option in must)
    assert subprocess.run(must, capture_output=True, check=False).returncode == 0
    other = [option.replace("jspecify", "nobody") for option in must]
    assert subprocess.run(other, capture_output=True, check=False).returncode != 0


def test_what_java_kept_is_of_its_jars(tmp_path: Path) -> None:
    """A jar that was written anew asks for a new cache; a Java from elsewhere has none."""
    jar = tmp_path / "some.jar"
    jar.write_bytes(b"PK")
    first = start_cache(java_path(), [jar])
    assert first is not None
    assert first == start_cache(java_path(), [jar])
    os.utime(jar, ns=(1, 1))
    assert start_cache(java_path(), [jar]) not in (None, first)
    assert start_cache("/usr/bin/java", [jar]) is None


def test_a_broker_starts_without_what_java_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing can be kept, this is said, and nothing is left behind."""
    keep(tmp_path / "nowhere" / "start.aot")
    assert "Kafka cannot be prepared, and starts slower" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_java_is_there() -> None:
    """The Java that the broker would run on can be run."""
    shown = subprocess.run([java_path(), "-version"], capture_output=True, text=True, check=True).stderr
    assert "version" in shown


def test_wrong_checksum_is_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cached jar with other bytes than the lock says is deleted and named, then had again."""
    pinned = next(jar for jar in jars.parse_lock(jars.LOCK.read_text()) if jar.artifact == "jspecify")
    lock, folder = tmp_path / "kafka.lock", tmp_path / "cache"
    jars.write_lock([pinned], lock)
    folder.mkdir()
    (folder / pinned.file_name).write_bytes(b"not a jar")
    assert jars.kafka_jars(lock, folder) == [folder / pinned.file_name]
    assert "wrong SHA-256" in capsys.readouterr().err
    assert (folder / pinned.file_name).read_bytes()[:2] == b"PK"


def test_wrong_pin_is_refused(tmp_path: Path) -> None:
    """A download that does not match its pin is not kept; the error names the jar and the ways out."""
    pinned = next(jar for jar in jars.parse_lock(jars.LOCK.read_text()) if jar.artifact == "jspecify")
    wrong = jars.Jar(pinned.group, pinned.artifact, pinned.version, "0" * 64)
    lock, folder = tmp_path / "kafka.lock", tmp_path / "cache"
    jars.write_lock([wrong], lock)
    with pytest.raises(jars.JarsError, match=r"(?s)jspecify.*wrong SHA-256.*HOOKLOG_KAFKA"):
        jars.kafka_jars(lock, folder)
    assert list(folder.iterdir()) == []


def test_pins_are_complete() -> None:
    """Every pin has a SHA-256, and all of Kafka's own jars have one version."""
    pins = jars.parse_lock(jars.LOCK.read_text())
    assert all(len(bytes.fromhex(pin.sha256)) == 32 for pin in pins)
    assert {pin.version for pin in pins if pin.group == "org.apache.kafka"} == {jars.kafka_version(pins)}


def test_refuses_without_broker() -> None:
    """`answers` is False where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert not answers(port)


def test_admin_error_is_an_exception(broker: Broker) -> None:
    """Creating a topic twice fails loudly."""
    create(broker, "twice")
    with pytest.raises(KafkaException):
        create(broker, "twice")
