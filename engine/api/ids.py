"""Ids, made at the edge: random, or derived from the request's Idempotency-Key so that a repeat has the same.

An endpoint's id says which body it was created with (by a keyed digest), so
a repeat is told from another request under the same key without a store.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

from fastapi import Header

from engine.api.auth import Caller
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services

HEADER = "Idempotency-Key"
IdempotencyKey = Annotated[str | None, Header(description="A repeat with the same key changes nothing.")]
_KEY_MAX = 255
_DIGEST_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """Where ids come from: one request, or all that share its Idempotency-Key."""

    token: bytes
    is_repeatable: bool

    def command_id(self, step: str = "") -> str:
        """Id of the request's command; `step` tells several apart."""
        return "cmd_" + blake2b(step.encode(), key=self.token, digest_size=16).hexdigest()

    def message_id(self, item: int = 0) -> str:
        """`msg_` and 24 URL-safe characters."""
        digest = blake2b(b"message %d" % item, key=self.token, digest_size=18).digest()
        return "msg_" + urlsafe_b64encode(digest).decode()

    def endpoint_id(self, body: bytes, key: bytes) -> str:
        """`ep_`, 16 characters of the request and 8 of its body."""
        digest = blake2b(body, key=key, digest_size=_DIGEST_CHARACTERS // 2).hexdigest()
        return self.endpoint_prefix + digest

    def key_id(self) -> str:
        """16 hexadecimal digits for an API key."""
        return blake2b(b"key", key=self.token, digest_size=8).hexdigest()

    @property
    def endpoint_prefix(self) -> str:
        """What the ids of an endpoint from this request begin with, whatever its body."""
        return "ep_" + blake2b(b"endpoint", key=self.token, digest_size=8).hexdigest()


Base = tuple[str, str, str, int]


def base(services: Services, caller: Caller, made: Origin, tenant: str) -> Base:
    """What every command begins with: its id, whose it is, who asks, and when."""
    return made.command_id(), tenant, caller.actor, services.context.clock.now()


def used_before() -> Problem:
    """422: an Idempotency-Key came again with another body."""
    return wrong(FieldError(HEADER, "was used before, with another body: choose a new one"))


def origin(caller: Caller, route: str, key: str | None) -> Origin:
    """Where a request's ids come from; Problem 422 for a malformed key."""
    if key is None:
        return Origin(os.urandom(32), is_repeatable=False)
    if not 0 < len(key) <= _KEY_MAX or not key.isprintable():
        raise wrong(FieldError(HEADER, f"must be 1 to {_KEY_MAX} printable characters"))
    token = blake2b("\0".join((caller.actor, route, key)).encode(), digest_size=32).digest()
    return Origin(token, is_repeatable=True)
