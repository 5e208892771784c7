"""The HTTP API when Kafka, the control group or the history is late, full or away."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from engine.api.control import rejected
from engine.api.problems import Problem
from engine.api.publisher import Publisher
from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EndpointSettings,
    Refusal,
    SealedSecret,
    UpdateEndpoint,
)
from engine.core.endpoint import Endpoint, decide, reject
from engine.ports import Acknowledged, Output, QueueFullError
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.decisions import UNSEALABLE
from engine.runtime.history.clickhouse import History, UnavailableError
from engine.runtime.history.rows import columns, routed_rows
from engine.runtime.memory import MemoryLog, MemoryProducer
from tests.integration.api_fixtures import PARTITIONS, Api, Ask, make_context, published, running
from tests.integration.history_fixtures import TOPIC, Store, batch, record, routing

NEW: dict[str, object] = {"tenant": "acme", "url": "https://hooks.example.com/in"}
MESSAGE: dict[str, object] = {"tenant": "acme", "event_type": "a.b", "payload": {"n": 1.50}}
HALF = Output("messages", 0, b"k", b"v" * 59)
"""Two of them take more room than `ROOM`."""
ROOM = 100


async def refusal(publisher: Publisher) -> Problem:
    """What publishing is refused with."""
    with pytest.raises(Problem) as caught:
        await publisher.publish(HALF)
    return caught.value


async def published_at(publisher: Publisher, producer: MemoryProducer) -> int:
    """Publish, and let the log acknowledge it."""
    publishing = asyncio.create_task(publisher.publish(HALF))
    await asyncio.sleep(0)
    producer.flush(1)
    return await publishing


def test_what_kafka_has_not_acknowledged_takes_room_though_nobody_waits_any_more() -> None:
    """After a timeout and after a disconnect: refused at once, until the log has the first record."""

    async def play(*, disconnect: bool) -> None:
        producer = MemoryProducer(MemoryLog(1, SystemClock()))
        publisher = Publisher(producer, limit_s=0.05, waiting_bytes_max=ROOM)
        first = asyncio.create_task(publisher.publish(HALF))
        await asyncio.sleep(0)
        if disconnect:
            first.cancel()
        await asyncio.wait([first])
        assert first.cancelled() if disconnect else isinstance(first.exception(), Problem)
        full = await refusal(publisher)
        assert (full.status_code, full.headers) == (503, {"Retry-After": "1"})
        assert len(producer) == 1
        producer.flush(1)
        await asyncio.sleep(0)
        assert await published_at(publisher, producer) == 1

    asyncio.run(play(disconnect=False))
    asyncio.run(play(disconnect=True))


class Queue(MemoryProducer):
    """A producer whose queue is full until told otherwise."""

    is_full = True

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Refuse it, or queue it."""
        if self.is_full:
            raise QueueFullError("the queue is full")
        super().send(output, acknowledged)


def test_a_full_queue_of_the_producer_is_a_refusal_that_takes_no_room() -> None:
    """503 with Retry-After as often as asked; the next record is taken once there is room."""

    async def play() -> None:
        producer = Queue(MemoryLog(1, SystemClock()))
        publisher = Publisher(producer, waiting_bytes_max=ROOM)
        for _ in range(3):
            full = await refusal(publisher)
            assert (full.status_code, full.headers) == (503, {"Retry-After": "1"})
        producer.is_full = False
        assert await published_at(publisher, producer) == 0

    asyncio.run(play())


class Slow(MemoryLog):
    """A log that, like Kafka, has to ask for a topic's partitions the first time."""

    def __init__(self) -> None:
        super().__init__(PARTITIONS, SystemClock())
        self.asked: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """Note which thread asked first."""
        self.asked.setdefault(topic, threading.get_ident())
        return super().partitions(topic)


def test_no_topic_is_looked_up_on_the_loop() -> None:
    """What routes write to is known before the first request: a look-up blocks."""
    log = Slow()
    api = Api(make_context(log=log), limit_s=0.05)
    try:
        assert api.ask("POST", "/v1/messages", MESSAGE).status_code == 202
        assert api.ask("POST", "/v1/endpoints", NEW).status_code == 503
        assert {"messages", "commands"} <= set(log.asked)
        assert threading.get_ident() not in log.asked.values()
    finally:
        api.close()


WHO = ("cmd", "acme", "admin", 1, "ep_1")
SETTINGS = EndpointSettings("https://hooks.example.com/in")
SECRET = SealedSecret(1, "key", b"nonce", b"sealed")
THERE = Endpoint("ep_1", "acme", SETTINGS, secrets=(SECRET,))


@pytest.mark.parametrize(
    ("command", "endpoint", "status"),
    [
        (CreateEndpoint(*WHO, SETTINGS, True, SECRET), THERE, 409),
        (UpdateEndpoint(*WHO, ("url",), SETTINGS), None, 404),
        (UpdateEndpoint(*WHO, ("url",), SETTINGS), replace(THERE, deleted=True), 404),
        (UpdateEndpoint(*WHO, ("shoe_size",), SETTINGS), THERE, 422),
        (DeleteEndpoint(*WHO), replace(THERE, tenant="other"), 404),
        (DisableEndpoint(*WHO, "410", expected_epoch=7), THERE, 409),
    ],
)
def test_a_rejection_is_answered_by_its_reason(
    command: Command, endpoint: Endpoint | None, status: int
) -> None:
    """What the rules of endpoints reject: missing 404, in conflict 409, senseless 422."""
    fact = decide(endpoint, command, 2)
    assert isinstance(fact, CommandRejected)
    assert (rejected(fact).status_code, rejected(fact).detail) == (status, fact.reason)


def test_a_rejection_for_a_reason_unknown_here_is_a_conflict() -> None:
    """As a newer control group may have; its reason is told."""
    fact = replace(reject(DeleteEndpoint(*WHO), 2, Refusal("conflict", "it is Sunday")), code="sunday")
    assert (rejected(fact).status_code, rejected(fact).detail) == (409, "it is Sunday")


def test_a_secret_that_control_cannot_open_is_no_conflict() -> None:
    """503 when the API has another master key; the reason says what to look at, and nothing is created."""
    log = MemoryLog(PARTITIONS, SystemClock())
    with running(make_context(log=log)) as other:
        api = Api(make_context(log=log))
        try:
            answer = api.ask("POST", "/v1/endpoints", NEW)
            assert (answer.status_code, answer.json()["detail"]) == (503, UNSEALABLE)
            assert other.services.configuration.endpoints == {}
        finally:
            api.close()


@pytest.mark.parametrize(("data_key_id", "version"), [("not here", 1), ("", 2)])
def test_a_secret_that_cannot_be_opened_here_is_a_problem_of_ours_that_says_what_to_do(
    data_key_id: str, version: int
) -> None:
    """503, never 500, whether its data key has not come or is another; GET still shows the endpoint."""
    with running(make_context(), limit_s=1) as api:
        created = api.ask("POST", "/v1/endpoints", NEW).json()
        configuration = api.services.configuration
        endpoint = configuration.endpoints[created["id"]]
        (known,) = endpoint.secrets
        sealed = replace(known, data_key_id=data_key_id or known.data_key_id, version=version)
        configuration.put(replace(endpoint, secrets=(sealed,)))
        path = f"/v1/endpoints/{endpoint.id}"
        answer = api.ask("PATCH", path, {"profile": "bedrud"})
        assert answer.status_code == 503
        assert endpoint.id in answer.json()["detail"]
        assert "master key" in answer.json()["detail"]
        assert api.ask("GET", path).json()["profile"] == "standard"


def asked(store: Store, chdb: str) -> History:
    """The store's history over a connection of its own, for the API to close."""
    database = store.settings.clickhouse_database
    return History(lambda: clickhouse_connect.get_client(dsn=chdb, database=database, tz_mode="aware"))


@pytest.mark.integration
def test_a_message_is_shown_as_soon_as_it_is_accepted(store: Store, chdb: str) -> None:
    """Before the history has it: as published, without deliveries. Afterwards: what the history says."""
    api = Api(make_context(), history=asked(store, chdb))
    try:
        assert api.ask("POST", "/v1/messages", MESSAGE | {"id": "m0"}).status_code == 202
        at, message = next(found for found in published(api) if found[1].id == "m0")
        shown = api.ask("GET", "/v1/messages/m0?tenant=acme")
        assert shown.status_code == 200
        assert shown.json() == {
            "id": "m0",
            "tenant": "acme",
            "event_type": "a.b",
            "accepted_at": shown.json()["accepted_at"],
            "bytes": len(message.payload),
            "payload": {"n": 1.5},
            "deliveries": [],
        }
        seen = replace(
            routing(0, "ep_1"),
            offset=at.offset,
            event_type="a.b",
            accepted_at=at.timestamp,
            bytes=len(message.payload),
        )
        routed = replace(batch(seen), partition=at.partition)
        for table, rows in routed_rows(record("routings", 0, routed), routed, TOPIC).items():
            store.history.insert(table, columns(table, rows), "")
        later = api.ask("GET", "/v1/messages/m0").json()
        assert [delivery["status"] for delivery in later.pop("deliveries")] == ["pending"]
        assert later | {"deliveries": []} == shown.json()
    finally:
        api.close()


@pytest.mark.integration
def test_a_message_that_nobody_published_is_a_404_that_speaks_of_patience(store: Store, chdb: str) -> None:
    """Unknown ids, and ids of another tenant: a problem that says when to ask again."""
    api = Api(make_context(), history=asked(store, chdb))
    try:
        assert api.ask("POST", "/v1/messages", MESSAGE | {"id": "mine"}).status_code == 202
        paths = ("/v1/messages/nobodys", "/v1/messages/mine?tenant=other")
        for answer in api.together(*(Ask("GET", path) for path in paths)):
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            assert "a moment ago" in answer.json()["detail"]
    finally:
        api.close()


def test_a_history_that_hangs_holds_up_no_other_route() -> None:
    """Many wait for ClickHouse; what else needs a thread is answered meanwhile."""
    released = threading.Event()

    def hang() -> Client:
        released.wait()
        raise UnavailableError("ClickHouse does not answer")

    with running(make_context(), history=History(hang)) as api:
        endpoint = api.ask("POST", "/v1/endpoints", NEW).json()["id"]
        replay = {"endpoint": endpoint, "since": "2026-01-01T00:00:00Z", "only": "all", "dry_run": True}
        others = [Ask("GET", "/v1/deliveries")] * 40
        replayed, *late = api.amid(others, Ask("POST", "/v1/replays", replay), released.set)
        assert replayed.status_code == 200, replayed.text
        assert [answer.status_code for answer in late] == [503] * len(others)
