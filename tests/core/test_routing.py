"""Routing: the partition of a key, ids, what is refused, and who a message goes to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished
from engine.core.routing import (
    Roster,
    dedup_key,
    delivery_id,
    matches,
    message_key,
    murmur2,
    partition_of,
    refusal,
    split,
    subscriber,
)

JAVA_VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
"""Of Apache Kafka's own test of Utils.murmur2."""

MESSAGE = MessagePublished("acme", "msg_1", "room.ended", b"{}", 0)


def endpoint(id: str = "ep_1", **changes: Any) -> Endpoint:
    """An endpoint that wants everything."""
    return replace(Endpoint(id, "acme", EndpointSettings("https://example.com")), **changes)


def wanting(*types: str) -> EndpointSettings:
    """Settings with a subscription."""
    return EndpointSettings("https://example.com", event_types=types)


# -- partitions -------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "signed"), JAVA_VECTORS)
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    """The hash of Kafka's Java client, for every length modulo 4."""
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_partitions_of_known_keys() -> None:
    """The sign bit is cut off, as Java's toPositive does, before the remainder is taken."""
    assert partition_of("21", 8) == (-973932308 & 0x7FFFFFFF) % 8
    assert partition_of("foobar", 7) == (-790332482 & 0x7FFFFFFF) % 7


@given(st.text(), st.integers(1, 256))
def test_a_partition_always_exists(key: str, partitions: int) -> None:
    """Whatever the key, the partition is one of those there are."""
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.fixture(scope="module")
def keyed_topic(kafka: str) -> Iterator[tuple[str, str, int]]:
    """Bootstrap address, and a topic with a number of partitions that is no power of two."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin, topic, partitions = AdminClient({"bootstrap.servers": kafka}), "partitioner", 7
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    yield kafka, topic, partitions
    admin.delete_topics([topic])[topic].result(30)


@pytest.mark.integration
def test_producers_with_the_named_partitioner_agree(keyed_topic: tuple[str, str, int]) -> None:
    """librdkafka's murmur2_random puts a key where partition_of says, for short, long and Unicode keys."""
    from confluent_kafka import Message, Producer

    bootstrap, topic, partitions = keyed_topic
    keys = [f"msg_{n}" for n in range(150)] + ["a" * n for n in range(1, 40)] + ["é", "漢字", "acme:room-1"]
    landed: dict[str, int] = {}

    def note(error: object, record: Message) -> None:
        assert error is None
        landed[(record.key() or b"").decode()] = record.partition() or 0

    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(topic, b"", key.encode(), on_delivery=note)
    assert producer.flush(30) == 0
    assert landed == {key: partition_of(key, partitions) for key in keys}


# -- keys and ids -----------------------------------------------------------------------


def test_keys_of_messages() -> None:
    """The id, or tenant and ordering key, so that one tenant's order never meets another's."""
    assert message_key("msg_1", "acme", None) == "msg_1"
    assert message_key("msg_1", "acme", "room-1") == "acme:room-1"
    assert message_key("msg_1", "acme", "") == "acme:"


def test_ids_stay_what_they_are() -> None:
    """A delivery's id and the key of the duplicate window, as b2sum computes them: records hold them."""
    assert delivery_id("hooklog.messages", 3, 10, "ep_1") == "dlv_680babe299328d09565d5b95"
    assert dedup_key("acme", "msg_1").hex() == "b17ee07ec88c171acf50bc7337416074"


def test_ids_differ_with_every_part() -> None:
    """Another topic, partition, offset or endpoint is another delivery."""
    places = [("a", 1, 11, "e"), ("b", 1, 11, "e"), ("a", 11, 1, "e"), ("a", 1, 12, "e"), ("a", 1, 11, "f")]
    assert len({delivery_id(*place) for place in places}) == len(places)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_duplicates_are_of_one_tenant(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Two (tenant, id) share a key only if they are the same; no tenant holds a NUL."""
    if "\0" not in one[0] + other[0]:
        assert (dedup_key(*one) == dedup_key(*other)) == (one == other)


# -- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"id": "m" * 256, "event_type": "!" * 256, "payload": b"x" * 100}, None),
        ({"tenant": ""}, "tenant"),
        ({"id": ""}, "id"),
        ({"id": "msg 1"}, "id"),
        ({"id": "msg.1"}, "id"),
        ({"id": "msg\n1"}, "id"),
        ({"id": "msg\x7f"}, "id"),
        ({"id": "é"}, "id"),
        ({"id": "m" * 257}, "id"),
        ({"event_type": ""}, "event_type"),
        ({"event_type": "room ended"}, "event_type"),
        ({"event_type": "room\tended"}, "event_type"),
        ({"event_type": "salle.terminée"}, "event_type"),
        ({"event_type": "!" * 257}, "event_type"),
        ({"payload": b"x" * 101}, "too_large"),
    ],
)
def test_what_is_refused(change: dict[str, Any], reason: str | None) -> None:
    """An envelope that could not become headers, or a payload over the limit, is named in one word."""
    refused = refusal(replace(MESSAGE, **change), payload_max=100)
    assert (refused and refused[0]) == reason


# -- subscriptions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "event_type", "expected"),
    [
        (None, "room.ended", True),
        (None, "anything", True),
        ((), "room.ended", False),
        (("room.ended",), "room.ended", True),
        (("room.ended",), "room.ended.twice", False),
        (("room.ended",), "Room.ended", False),
        (("room.ended", "room.started"), "room.started", True),
        (("room.*",), "room.ended", True),
        (("room.*",), "room.", True),
        (("room.*",), "room", False),
        (("room.*",), "rooms.ended", False),
        (("room.*",), "my.room.ended", False),
        (("room.*", "stream.started"), "stream.started", True),
        (("room.*", "stream.started"), "stream.ended", False),
        (("room.*", "stream.*"), "stream.ended", True),
        (("*",), "anything", True),
    ],
)
def test_subscriptions(types: tuple[str, ...] | None, event_type: str, *, expected: bool) -> None:
    """A list takes what it names, `room.*` all that begins so, None everything, an empty list nothing."""
    settings = EndpointSettings("https://example.com", event_types=types)
    assert matches(subscriber(endpoint(settings=settings), 8), event_type) is expected


def test_a_subscriber_knows_its_partition() -> None:
    """Deliveries of an endpoint go to the partition of its id."""
    assert subscriber(endpoint("ep_1"), 8).partition == partition_of("ep_1", 8)


def test_disabled_endpoints_are_told_apart() -> None:
    """Those that match and are disabled are skipped on the record; those that don't match are nowhere."""
    on, off = endpoint("on"), endpoint("off", enabled=False)
    other = endpoint("other", settings=wanting("stream.*"))
    to_deliver, to_skip = split([subscriber(e, 8) for e in (on, off, other)], "room.ended")
    assert [s.endpoint.id for s in to_deliver] == ["on"]
    assert [s.endpoint.id for s in to_skip] == ["off"]


# -- the roster -------------------------------------------------------------------------


def test_a_roster_keeps_the_last_snapshot() -> None:
    """A snapshot replaces the one before; its subscription counts from then on."""
    roster = Roster(8)
    roster.put(endpoint(settings=wanting("room.*")))
    roster.put(endpoint(settings=wanting("stream.*")))
    (only,) = roster.of("acme").values()
    assert not matches(only, "room.ended")
    assert matches(only, "stream.ended")


def test_a_deleted_endpoint_is_gone() -> None:
    """Also if it was never seen before, as after compaction."""
    roster = Roster(8)
    roster.put(endpoint("ep_1"))
    roster.put(endpoint("ep_1", deleted=True))
    roster.put(endpoint("ep_2", deleted=True))
    assert dict(roster.of("acme")) == {}


def test_tenants_do_not_see_each_other() -> None:
    """A message matches endpoints of its own tenant only; an unknown tenant has none."""
    roster = Roster(8)
    roster.put(endpoint("ep_1"))
    roster.put(endpoint("ep_2", tenant="globex"))
    assert list(roster.of("acme")) == ["ep_1"]
    assert list(roster.of("globex")) == ["ep_2"]
    assert dict(roster.of("initech")) == {}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=20))
def test_a_roster_is_a_fold(history: list[tuple[str, str, bool]]) -> None:
    """It holds exactly the endpoints whose last snapshot isn't deleted, and telling it twice is as once."""
    once, twice = Roster(8), Roster(8)
    for tenant, id, deleted in history:
        snapshot = endpoint(tenant + id, tenant=tenant, deleted=deleted)
        once.put(snapshot)
        twice.put(snapshot)
        twice.put(snapshot)
    last = {tenant + id: deleted for tenant, id, deleted in history}
    for tenant in "ab":
        expected = {id for id, deleted in last.items() if id[0] == tenant and not deleted}
        assert set(once.of(tenant)) == set(twice.of(tenant)) == expected
