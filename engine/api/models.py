"""The shapes of requests and answers, as OpenAPI shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    SecretStr,
    WithJsonSchema,
)

from engine.core.duration import parse_duration
from engine.core.lane import RATE_MIN
from engine.core.template import RESERVED_HEADERS

HEADERS_MAX = 20
HEADER_MASK = "********"
"""What answers show instead of a header's value, which may be a credential."""
HEADER_VALUE_MAX = 4_096
EVENT_TYPES_MAX = 200
RETRIES_MAX = 50
RETRY_DELAY_MAX_US = 30 * 86_400 * 1_000_000
BATCH_MAX = 1_000
DOT_SEGMENTS = (".", "..")
NO_DOTS = "must not be . or .., which no URL can name"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[!-~](?:[ -~\t]*[!-~])?")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without spaces at its ends")
    if text in DOT_SEGMENTS:
        raise ValueError(NO_DOTS)
    return text


def readable(text: str) -> str:
    """Avro strings are UTF-8, which has no lone surrogates; NUL is trouble everywhere."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must be text in UTF-8 without NUL characters")
    return text


def _event_type_pattern(pattern: str) -> str:
    if not _is_pattern(pattern):
        raise ValueError(
            f"{pattern!r} is no event type: write one (room.ended), a prefix (room.*), or * for all"
        )
    return pattern


def _is_pattern(pattern: str) -> bool:
    exact = pattern.removesuffix(".*")
    return pattern == "*" or bool(re.fullmatch(r"[!-)+-~]{1,254}", exact))


def _header_names(headers: Mapping[str, str]) -> Mapping[str, str]:
    if len({name.lower() for name in headers}) != len(headers):
        raise ValueError("must not hold the same name twice")
    for name, value in headers.items():
        _check_header(name, value)
    return headers


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no header name: use letters, digits and hyphens")
    if name.lower() in RESERVED_HEADERS or name.lower().startswith("webhook-"):
        raise ValueError(f"{name} is set by hooklog or the HTTP client and cannot be chosen")
    if value == HEADER_MASK:
        raise ValueError(
            f"the value of {name} is what answers show instead of one: give the value itself, "
            "or leave headers out, and they stay as they are"
        )
    if len(value) > HEADER_VALUE_MAX or not (value == "" or _VALUE.fullmatch(value)):
        raise ValueError(
            f"the value of {name} must be printable ASCII, at most {HEADER_VALUE_MAX} characters, "
            "without spaces at its ends"
        )


def _duration(text: str) -> str:
    if not 0 < parse_duration(text) <= RETRY_DELAY_MAX_US:
        raise ValueError(f"{text!r} must be more than nothing and at most 30 days")
    return text


Tenant = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
EventTypes = Annotated[
    list[Annotated[str, AfterValidator(_event_type_pattern)]], Field(min_length=1, max_length=EVENT_TYPES_MAX)
]
Headers = Annotated[dict[str, str], Field(max_length=HEADERS_MAX), AfterValidator(_header_names)]
RetryPolicy = Annotated[list[Annotated[str, AfterValidator(_duration)]], Field(max_length=RETRIES_MAX)]
Description = Annotated[str, Field(max_length=1_000), AfterValidator(readable)]
TimeoutMs = Annotated[int, Field(ge=100, le=60_000)]
RateLimit = Annotated[FiniteFloat, Field(ge=RATE_MIN, le=100_000)]


class Input(BaseModel):
    """A body: nothing but its fields, each of its very type."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class EndpointInput(Input):
    """A new endpoint."""

    tenant: Tenant | None = Field(None, description="May be left out with a key that is bound to it.")
    url: str
    event_types: EventTypes | None = Field(None, description="Types, prefixes such as room.*; null: all.")
    profile: str = "standard"
    secret: SecretStr | None = Field(None, description="Generated if left out.")
    headers: Headers = Field(
        default_factory=dict, description="Sent with each request; answers mask their values."
    )
    description: Description = ""
    retry_policy: RetryPolicy | None = Field(
        None,
        description="Delays before each retry, such as 5s; null: the profile's.",
        examples=[["5s", "30s", "2m"]],
    )
    timeout_ms: TimeoutMs | None = Field(None, description="Null: the profile's.")
    rate_limit: RateLimit | None = Field(None, description="Requests a second.")
    enabled: bool = True


class EndpointPatch(Input):
    """Changes of an endpoint; what is left out stays."""

    url: str = ""
    event_types: EventTypes | None = None
    profile: str = ""
    headers: Headers = Field(default_factory=dict)
    description: Description = ""
    retry_policy: RetryPolicy | None = None
    timeout_ms: TimeoutMs | None = None
    rate_limit: RateLimit | None = None
    enabled: bool = True
    secret: Annotated[object, Field(None, exclude=True), WithJsonSchema({"not": {}})]
    """Named only to say where secrets are changed."""


class EndpointAnswer(BaseModel):
    """An endpoint; null means what its profile says (event types: all)."""

    id: str
    tenant: str
    url: str
    event_types: list[str] | None
    profile: str
    headers: dict[str, str]
    description: str
    retry_policy: list[str] | None
    timeout_ms: int | None
    rate_limit: float | None
    enabled: bool
    disabled_reason: str
    created_at: str
    updated_at: str
    version: int = Field(description="Rises with each change; also the ETag, for If-Match.")


class CreatedAnswer(EndpointAnswer):
    """A new endpoint with its secret, which is shown this once."""

    secret: str | None = Field(None, description="Left out when an Idempotency-Key was repeated.")


class EndpointList(BaseModel):
    """A page of endpoints."""

    data: list[EndpointAnswer]
    next: str | None


class MessageInput(Input):
    """A message. The payload is passed on byte for byte, as it is written here."""

    tenant: Tenant | None = Field(None, description="May be left out with a key that is bound to it.")
    event_type: str
    payload: JsonValue
    id: str | None = Field(None, description="Generated if left out.")
    ordering_key: str | None = None


class MessageBatch(Input):
    """Messages to accept, each by itself."""

    messages: Annotated[list[MessageInput], Field(min_length=1, max_length=BATCH_MAX)]


class Accepted(BaseModel):
    """The broker has the message, on all replicas."""

    id: str


class ErrorAnswer(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class ProblemAnswer(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ErrorAnswer] = []


class BatchResult(BaseModel):
    """What became of one message of a batch."""

    status: int
    id: str | None = None
    detail: str | None = None
    errors: list[ErrorAnswer] | None = None


class BatchAnswer(BaseModel):
    """A result per message, in order."""

    data: list[BatchResult]


class AttemptAnswer(BaseModel):
    """One request, and what was decided after it."""

    attempt: int
    trigger: Literal["scheduled", "resend", "replay", "test"]
    attempted_at: str
    duration_ms: float
    outcome: str
    status_code: int
    error_class: str
    error: str
    decision: str
    reason: str
    next_attempt_at: str | None
    response_body: str
    worker: str
    cause: str = Field(description="Likely cause of the failure, in words; empty without one.")


class DeliveryAnswer(BaseModel):
    """A message to one endpoint; `origin` names the resend or replay it comes from."""

    id: str
    endpoint_id: str
    status: Literal["delivered", "failed", "pending", "skipped"]
    reason: str
    origin: str
    updated_at: str
    next_attempt_at: str | None
    cause: str = Field(description="Likely cause of the last failure, in words; empty without one.")
    attempts: list[AttemptAnswer]


class MessageAnswer(BaseModel):
    """A message and all that has happened to it; without `payload` once the log has let go of it."""

    id: str
    tenant: str
    event_type: str
    accepted_at: str
    bytes: int
    payload: JsonValue = None
    deliveries: list[DeliveryAnswer]


class AccountingAnswer(BaseModel):
    """What became of every first-time delivery; `checked_at` is when it was counted."""

    matched: int
    delivered: int
    failed: int
    pending: int
    skipped: int
    unaccounted: int
    checked_at: str
