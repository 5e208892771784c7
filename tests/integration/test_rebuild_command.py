"""`hooklog rebuild` as a person runs it: a real broker, a real store, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from engine.core.routing import delivery_id
from engine.ports import Output
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.settings import Settings
from tests.integration.history_fixtures import CODEC, Store, attempt, batch, routing
from tests.integration.lying_store import StoreProcess, front, process, served

__all__ = ["front", "process", "served"]
pytestmark = pytest.mark.integration


def rebuild(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    argv = [sys.executable, "-m", "engine.cli.main", "rebuild", *arguments]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_the_command(kafka: str, prefix: str, served: Store, process: StoreProcess) -> None:
    """It fills empty tables from the log, keeps what a trimmed log has lost, and says why it cannot."""
    settings = Settings(kafka=kafka, prefix=prefix, partitions=2)
    KafkaAdmin(settings).create()
    producer = KafkaLog(settings).producer()
    ids = [delivery_id(f"{prefix}messages", 0, n, "ep") for n in range(2)]
    records = [
        ("routings", batch(routing(0, "ep"), routing(1, "ep"))),
        *(("attempts", replace(attempt(n, "ep", 1, "delivered"), delivery_id=ids[n])) for n in range(2)),
    ]
    for topic, value in records:
        producer.send(Output(topic, 0, None, CODEC.encode(value)), lambda _: None)
    assert producer.flush(30)
    env = {
        "HOOKLOG_KAFKA": kafka,
        "HOOKLOG_PREFIX": prefix,
        "HOOKLOG_PARTITIONS": "2",
        "HOOKLOG_CLICKHOUSE": f"http://127.0.0.1:{process.port}",
        "HOOKLOG_CLICKHOUSE_DATABASE": served.settings.clickhouse_database,
    }
    first = rebuild(env)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1:] == [
        *("messages\t0\t2\t0", "deliveries\t0\t2\t0", "attempts\t0\t2\t0", "changes\t0\t0\t0"),
        "3 records read, 0 undecodable; `hooklog reconcile` proves it",
    ]
    assert "reading the log: 0 of 3\n" in first.stderr
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_records([TopicPartition(f"{prefix}attempts", 0, 1)]).values():
        deleted.result(30)
    again = rebuild(env, "-o", "json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["tables"]["attempts"] == {"before": 2, "after": 2, "carried": 1}
    away = rebuild({**env, "HOOKLOG_CLICKHOUSE": "http://127.0.0.1:1"})
    assert (away.returncode, "Traceback" in away.stderr) == (3, False)
