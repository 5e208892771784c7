"""Notices become operational webhooks, each one message."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest

from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished
from engine.core.notice import EVENT_TYPES, NoticeKind
from engine.runtime.health.operations import Operations
from engine.runtime.memory import MemoryConsumer
from schemas import headers
from tests.pipeline.health_scene import Scene
from tests.pipeline.mailing_scene import a_notice
from tests.pipeline.world import CODEC, TENANT

NOBODY: Mapping[str, Endpoint] = {}


def publish(
    scene: Scene, seconds: int = 4, endpoints: Mapping[str, Endpoint] = NOBODY
) -> list[MessagePublished]:
    """Let a new process work for so long, then kill it; everything on `messages`."""
    operations = Operations(scene.context(), endpoints)
    for _ in range(seconds):
        operations.step()
        scene.clock.us += 1_000_000
    consumer = operations.member.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.kill()
    return [CODEC.decode_as(MessagePublished, record.value) for record in scene.records("messages")]


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_a_notice_is_published_as_a_message(kind: NoticeKind) -> None:
    """Under its own id, for the platform's tenant, with everything that a mail tells."""
    scene = Scene(0, operations_tenant="platform")
    notice = a_notice(1, kind, exhausted=7)
    scene.append("notices", "ep_1", notice)
    (message,) = publish(scene)
    assert (message.tenant, message.id, message.event_type) == ("platform", notice.id, EVENT_TYPES[kind])
    payload = orjson.loads(message.payload)
    assert (payload["tenant"], payload["endpoint_id"], payload["exhausted"]) == (TENANT, "ep_1", 7)
    assert payload["likely_cause"] == "the receiver, or a proxy before it, has a fault"
    assert payload["since"] == "2025-10-09T08:53:18.765433Z"
    (record,) = scene.records("messages")
    assert record.headers[headers.CAUSE].startswith(b"notices:")


def test_a_repeat_after_a_crash_has_the_same_id() -> None:
    """The router drops it; what was committed is not repeated at all."""
    scene = Scene(0, operations_tenant="platform")
    scene.append("notices", "ep_1", a_notice(1))
    publish(scene, 2)
    assert {message.id for message in publish(scene)} == {a_notice(1).id}
    count = len(publish(scene))
    assert len(publish(scene)) == count <= 2


def test_a_crash_before_the_message_is_acknowledged_loses_nothing() -> None:
    """Nothing is committed before it is on `messages`."""
    scene = Scene(0, operations_tenant="platform")
    scene.append("notices", "ep_1", a_notice(1))
    operations = Operations(scene.context(), {})
    scene.clock.us += 2_000_000
    operations.step()
    consumer = operations.member.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.kill()
    assert {message.id for message in publish(scene)} == {a_notice(1).id}


def test_nobody_is_told_by_webhook_of_the_endpoint_that_the_webhook_goes_to() -> None:
    """Nor is anything published where no tenant is named."""
    scene = Scene(0, operations_tenant=TENANT)
    scene.append("notices", "ep_1", a_notice(1))
    assert publish(scene) == []
    silent = Scene(0)
    silent.append("notices", "ep_1", a_notice(1))
    assert publish(silent) == []
