"""Which Kafka the tests run on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient


@pytest.mark.parametrize(
    ("named", "docker", "expected"),
    [
        (None, False, "embedded"),
        (None, True, "container"),
        ("", True, "container"),
        ("", False, "embedded"),
        ("broker:9092", False, "named"),
        ("broker:9092", True, "named"),
    ],
)
def test_choice(
    broker_choice: Callable[[str | None, bool], str], named: str | None, docker: bool, expected: str
) -> None:
    """A named broker wins, then a container, and without either the embedded broker is used."""
    assert broker_choice(named, docker) == expected


@pytest.mark.integration
def test_session_broker_answers(kafka: str) -> None:
    """Whichever was chosen, there is one live broker behind the fixture."""
    assert len(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).brokers) == 1


@pytest.mark.integration
def test_container_broker_answers(docker_kafka: str) -> None:
    """Kafka in a container answers too, where a Docker engine does."""
    assert len(AdminClient({"bootstrap.servers": docker_kafka}).list_topics(timeout=10).brokers) == 1
