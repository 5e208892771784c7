"""Deliveries that are made again, or as a test: for the endpoint as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from engine.core.endpoint import Endpoint
from engine.core.model import DeliveryScheduled, MessagePublished, Trigger
from engine.core.profile import render
from engine.core.replay import Resent, ResentBatch, SendTest, ping_id, resent_id
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.configuration.views import Configuration, View
from engine.runtime.context import Context
from engine.runtime.replaying.originals import Original
from schemas import headers

Source = tuple[int, int]


class By(NamedTuple):
    """What a delivery is made by: the id that its own comes from, and what it says of its origin."""

    made_by: str
    trigger: Trigger
    origin: str


class Remake:
    """Makes deliveries of what was found."""

    def __init__(self, context: Context, configuration: Configuration, view: View) -> None:
        self._context = context
        self._configuration = configuration
        self._view = view
        self._topic = context.settings.prefix + "messages"
        self.partitions = context.log.partitions("deliveries")

    def endpoint(self, endpoint_id: str, tenant: str) -> Endpoint | None:
        """Return an endpoint as our view has it; None if it is deleted or another tenant's."""
        found = self._configuration.endpoints.get(endpoint_id)
        return None if found is None or found.deleted or found.tenant != tenant else found

    def those(self, tenant: str, endpoint_id: str) -> list[Endpoint]:
        """The endpoint of that id, without one all of the tenant, if they are not deleted."""
        if not endpoint_id:
            return list(self._configuration.of_tenant(tenant).values())
        one = self.endpoint(endpoint_id, tenant)
        return [] if one is None else [one]

    def id_of(self, made_by: str, source: Source, endpoint_id: str) -> str:
        """Id of the delivery that is made of a message."""
        return resent_id(made_by, self._topic, source, endpoint_id)

    def body(self, endpoint: Endpoint, message: MessagePublished) -> bytes:
        """The body as the endpoint's profile has it."""
        return render(self._context.profile(endpoint.settings.profile), message)

    def of_original(
        self, original: Original, source: Source, endpoint: Endpoint, by: By
    ) -> DeliveryScheduled:
        """Make a delivery of a message, or of its dead letter."""
        if original.dead is not None:
            return self.of_dead(original.dead, endpoint, by)
        assert original.message is not None
        body = self.body(endpoint, original.message)
        return self.of_message(original.message, (original.accepted_at, source), endpoint, by, body)

    def of_message(
        self,
        message: MessagePublished,
        accepted: tuple[int, Source],
        endpoint: Endpoint,
        by: By,
        body: bytes,
    ) -> DeliveryScheduled:
        """Make a delivery of a message; `accepted` is when, and where it is."""
        accepted_at, source = accepted
        return DeliveryScheduled(
            delivery_id=self.id_of(by.made_by, source, endpoint.id),
            tenant=message.tenant,
            endpoint_id=endpoint.id,
            message_id=message.id,
            event_type=message.event_type,
            attempt=1,
            trigger=by.trigger,
            origin=by.origin,
            accepted_at=accepted_at,
            published_at=message.published_at,
            profile=endpoint.settings.profile,
            endpoint_epoch=endpoint.epoch,
            view_offset=self._seen(endpoint),
            source_partition=source[0],
            source_offset=source[1],
            body=body,
        )

    def of_dead(self, dead: DeliveryScheduled, endpoint: Endpoint, by: By) -> DeliveryScheduled:
        """Make a delivery of one that failed; its body and the profile it follows stay as they were."""
        source = dead.source_partition, dead.source_offset
        return replace(
            dead,
            delivery_id=self.id_of(by.made_by, source, endpoint.id),
            attempt=1,
            trigger=by.trigger,
            origin=by.origin,
            endpoint_epoch=endpoint.epoch,
            view_offset=self._seen(endpoint),
        )

    def of_test(
        self, command: SendTest, accepted: tuple[int, Source], endpoint: Endpoint
    ) -> DeliveryScheduled:
        """Make the delivery of a test send; it is accepted when, and its source is where, its command is."""
        message = MessagePublished(
            command.tenant,
            ping_id(command.command_id),
            command.event_type,
            command.payload,
            command.requested_at,
        )
        by = By(command.command_id, "test", command.command_id)
        made = self.of_message(message, accepted, endpoint, by, self.body(endpoint, message))
        return replace(made, delivery_id=tried_id(command.command_id, endpoint.id))

    def _seen(self, endpoint: Endpoint) -> int:
        return self._view.position("endpoints", partition_of(endpoint.tenant, self.partitions))

    def output(self, delivery: DeliveryScheduled, cause: bytes) -> Output:
        """The record on `deliveries`."""
        found = headers.of_delivery(delivery, cause)
        partition = partition_of(delivery.endpoint_id, self.partitions)
        value = self._context.codec.encode(delivery)
        return Output("deliveries", partition, delivery.endpoint_id.encode(), value, found)


def tried_id(command_id: str, endpoint_id: str) -> str:
    """Id of the delivery of a test send."""
    return resent_id(command_id, "commands", (0, 0), endpoint_id)


def resent_of(delivery: DeliveryScheduled) -> Resent:
    """What `routings` says of a delivery that was made again."""
    return Resent(
        delivery.delivery_id,
        delivery.endpoint_id,
        delivery.message_id,
        delivery.event_type,
        delivery.trigger,
        delivery.origin,
        delivery.accepted_at,
        delivery.source_partition,
        delivery.source_offset,
    )


class Asker(Protocol):
    """A command, or the replay that one began."""

    @property
    def command_id(self) -> str:
        """Id of the command."""

    @property
    def tenant(self) -> str:
        """Whose deliveries they are."""

    @property
    def actor(self) -> str:
        """Who asked."""


def batch_of(deliveries: Sequence[Resent], asker: Asker, at: int) -> ResentBatch:
    """Name deliveries that were written."""
    return ResentBatch(asker.command_id, asker.tenant, asker.actor, at, tuple(deliveries))
