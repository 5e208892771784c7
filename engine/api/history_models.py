"""The shapes of the history, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.api.history_pages import PageQuery, Text
from engine.api.models import AttemptAnswer

Status = Literal["delivered", "failed", "pending", "skipped"]


class DeliveryQuery(PageQuery):
    """Which deliveries; times are those of the messages."""

    endpoint: Text | None = None
    message: Text | None = None
    status: Status | None = None
    event_type: Text | None = None


class MessageQuery(PageQuery):
    """Which messages."""

    event_type: Text | None = None


class ChangeQuery(PageQuery):
    """Which changes."""

    subject: Text | None = Field(
        None, description="Kind of thing: endpoint, key, tenant, event_type, replay…"
    )
    subject_id: Text | None = None
    change: Text | None = Field(None, description="Such as created, disabled, secret_rotated.")
    actor: Text | None = None


class ListedDelivery(BaseModel):
    """A message to one endpoint, and where that stands; `status_code` is 0 without an answer."""

    id: str
    tenant: str
    endpoint_id: str
    message_id: str
    event_type: str
    status: Status
    reason: str
    error_class: str
    status_code: int
    attempt_count: int
    accepted_at: str
    updated_at: str
    next_attempt_at: str | None
    origin: str
    cause: str = Field(description="Likely cause of the last failure, in words; empty without one.")


class OneDelivery(ListedDelivery):
    """A delivery with each of its attempts."""

    attempts: list[AttemptAnswer]


class DeliveryList(BaseModel):
    """A page of deliveries, newest message first."""

    data: list[ListedDelivery]
    next: str | None


class ListedMessage(BaseModel):
    """A message that was routed: to how many endpoints, and how many were passed over."""

    id: str
    tenant: str
    event_type: str
    accepted_at: str
    bytes: int
    matched: int
    skipped: int


class MessageList(BaseModel):
    """A page of messages, newest first."""

    data: list[ListedMessage]
    next: str | None


class Change(BaseModel):
    """Who did what, when; `details` depends on the change and holds no secret."""

    tenant: str
    subject: str
    subject_id: str
    change: str
    actor: str
    at: str
    command_id: str
    details: dict[str, Any]


class ChangeList(BaseModel):
    """A page of changes, newest first."""

    data: list[Change]
    next: str | None
