"""Shared fixtures: one Kafka broker and one ClickHouse engine a test session."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from hypothesis import settings

from engine.dev.broker import Broker

BrokerKind = Literal["named", "container", "embedded"]
# Not HOOKLOG_…: the product refuses variables of that kind that it doesn't know.
BOOTSTRAP_VARIABLE = "TEST_KAFKA_BOOTSTRAP"
_CONTAINER_SETTINGS = {
    "KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE": "LogAppendTime",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}

# how long an example takes is the machine's business, not a test's
settings.register_profile("hooklog", deadline=None)
settings.load_profile("hooklog")


def choose_broker(named: str | None, docker: bool) -> BrokerKind:
    """A broker that was named wins, then a container if a Docker engine answers, then the embedded one."""
    if named:
        return "named"
    return "container" if docker else "embedded"


def docker_answers() -> bool:
    """True if a Docker engine answers a ping within 2 s."""
    engine = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    unix = engine.scheme == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
        connection.settimeout(2)
        try:
            connection.connect(engine.path if unix else (engine.hostname, engine.port))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


@contextmanager
def container_broker() -> Iterator[str]:
    """Bootstrap address of Kafka in a container."""
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer().with_kraft()
    for name, value in _CONTAINER_SETTINGS.items():
        container = container.with_env(name, value)
    with container:
        yield container.get_bootstrap_server()


@pytest.fixture(scope="session")
def broker_choice() -> Callable[[str | None, bool], BrokerKind]:
    """The rule by which the session's broker is chosen."""
    return choose_broker


@pytest.fixture(scope="session")
def docker_kafka() -> Iterator[str]:
    """Bootstrap address of Kafka in a container; skips where that is impossible."""
    if not docker_answers():
        pytest.skip("no Docker engine")
    with container_broker() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the session's one broker."""
    named = os.environ.get(BOOTSTRAP_VARIABLE)
    match choose_broker(named, not named and docker_answers()):
        case "named":
            yield named or ""
        case "container":
            with container_broker() as bootstrap:
                yield bootstrap
        case "embedded":
            with Broker(tmp_path_factory.mktemp("kafka")) as broker:
                yield broker.bootstrap


@pytest.fixture(scope="session")
def chdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """DSN of the engine in this process, which can open one directory only until its last connection is gone.

    When that is, nobody knows who has a thread that still asks; so there is one directory for all tests.
    """
    dsn = f"chdb://{tmp_path_factory.mktemp('chdb')}"
    keeper = clickhouse_connect.get_client(dsn=dsn)
    yield dsn
    keeper.close()


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test has."""
    return f"t{secrets.token_hex(4)}."
