"""Operational webhooks: notices become messages of a tenant of the platform, delivered as any other.

A message has its notice's id, so one that is published again after a crash is dropped by the router.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished
from engine.core.notice import EVENT_TYPES, Notice, cause_of
from engine.core.routing import message_key, partition_of
from engine.core.template import rfc3339
from engine.ports import Output, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.configuration.views import is_deleted
from engine.runtime.context import Context
from engine.runtime.member import Member
from schemas import headers
from schemas.codec import UndecodableError

GROUP = "operations"
BATCH_MAX = 200
COMMIT_EVERY_S = 1.0


class Operations:
    """Publishes notices; never waits."""

    def __init__(self, context: Context, endpoints: Mapping[str, Endpoint]) -> None:
        """`endpoints` is a view that somebody else follows."""
        self._context = context
        self._endpoints = endpoints
        self.tenant = context.settings.operations_tenant
        self._producer = context.log.producer()
        self.member = Member(context.log, GROUP, ("notices",))
        self._committed = context.clock.monotonic()
        self._marked: dict[TopicPartition, int] = {}
        """Where the last commit was."""

    def step(self) -> None:
        """Publish what is there; commit when it is acknowledged."""
        for message in self.member.each(self.member.poll(0, BATCH_MAX), self._message):
            if message is not None:
                self._producer.send(message, lambda offset: None)
        self._producer.poll()
        now = self._context.clock.monotonic()
        is_time = now - self._committed >= COMMIT_EVERY_S and not len(self._producer)
        if is_time and self._marked != self.member.next:
            self._committed, self._marked = now, dict(self.member.next)
            self.member.commit(wait=False)

    def _message(self, record: Record) -> Output | None:
        """None without a tenant, of deleted endpoints, and of its own, which would hear of themselves."""
        try:
            notice = self._context.codec.decode_as(Notice, record.value)
        except UndecodableError:
            return None
        if not self.tenant or notice.tenant == self.tenant:
            return None
        if is_deleted(self._endpoints, notice.endpoint_id):
            return None
        telemetry.NOTIFICATIONS.labels(notice.kind, "published").inc()
        message = message_of(notice, self.tenant)
        key = message_key(message.id, message.tenant, None)
        partition = partition_of(key, self._context.log.partitions("messages"))
        cause = {headers.CAUSE: headers.cause_for(record)}
        return Output("messages", partition, key.encode(), self._context.codec.encode(message), cause)

    def close(self) -> None:
        """Commit what is acknowledged, leave."""
        if self._producer.flush(10) and self.member.next:
            self.member.commit(wait=True)
        self.member.consumer.close()


def message_of(notice: Notice, tenant: str) -> MessagePublished:
    """The message that tells of a notice."""
    return MessagePublished(tenant, notice.id, EVENT_TYPES[notice.kind], payload_of(notice), notice.at)


def payload_of(notice: Notice) -> bytes:
    """What is told, as JSON; documented in the README."""
    payload: dict[str, object] = {
        "tenant": notice.tenant,
        "endpoint_id": notice.endpoint_id,
        "url": notice.url,
        "at": rfc3339(notice.at),
        "since": rfc3339(notice.since) if notice.since else None,
        "failures": notice.failures,
        "exhausted": notice.exhausted,
        "error_classes": dict(notice.error_classes),
        "error_class": notice.error_class,
        "status_code": notice.status_code,
        "likely_cause": cause_of(notice),
        "last_success_at": rfc3339(notice.succeeded_at) if notice.succeeded_at else None,
        "disable_at": rfc3339(notice.disable_at) if notice.disable_at else None,
        "reason": notice.reason,
    }
    return orjson.dumps(payload)
