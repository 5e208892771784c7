"""Ids, made at the edge: random, or derived from the request's Idempotency-Key so that a repeat has the same.

A key that comes again with another request, be it another body or another
route, is answered 422. What can be known of that:

- A process remembers what the last keys were used for (`claim`): all of it, for
  what it has itself accepted.
- Of what another process accepted, or this one before it was started, a new
  tenant, API key, endpoint, secret, replay or test send is found on the log and
  compared with the request. (An endpoint's id says which body it was created
  with, by a keyed digest.) A rotation that leaves out the secret which the first
  one chose is not told from a repeat of it.
- A message is not looked for on the log: it is answered 202, the first one is
  delivered and the second ends on `invalid` as a conflict. Nor is it known there
  that a key was used on another route: both requests are done.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Annotated

import orjson
from fastapi import Header
from pydantic import BaseModel

from engine.api.auth import Caller
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services

HEADER = "Idempotency-Key"
IdempotencyKey = Annotated[str | None, Header(description="A repeat with the same key changes nothing.")]
_KEY_MAX = 255
_DIGEST_CHARACTERS = 8
_UNKNOWN = b"?"
"""What a key was used for by another process."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where ids come from: one request, or all that share its Idempotency-Key."""

    token: bytes
    is_repeatable: bool
    route: str = ""
    key: bytes = b""
    """Digest of who asks and its Idempotency-Key, whatever the route; empty: no key of the caller's."""

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


def used_before(services: Services, made: Origin) -> Problem:
    """422: the log says that a key was used for another request; which that is, a repeat of it will tell."""
    if made.key:
        services.claimed.put(made.key, _UNKNOWN, services.context.clock.now())
    return _used_before()


def _used_before() -> Problem:
    return wrong(FieldError(HEADER, "was used before, with another request: choose a new one"))


def claim(services: Services, made: Origin, said: Iterable[bytes] = ()) -> None:
    """Note what a key is used for; Problem 422 if this process knows it from another request.

    Called just before the log is written: a request that is refused before that uses no key.
    `said`: the parts of its body that matter, in an order of their own.
    """
    if not made.key:
        return
    digest = blake2b(made.route.encode(), digest_size=16)
    for part in said:
        digest.update(b"%d:" % len(part) + part)
    wanted = digest.digest()
    if services.claimed.get(made.key) not in (None, _UNKNOWN, wanted):
        raise _used_before()
    services.claimed.put(made.key, wanted, services.context.clock.now())


def text_of(said: object) -> bytes:
    """Canonical JSON of a body or of some of its values, for `claim`; a secret is masked in a body."""
    plain = said.model_dump(mode="json") if isinstance(said, BaseModel) else said
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def origin(caller: Caller, route: str, key: str | None) -> Origin:
    """Where a request's ids come from; Problem 422 for a malformed key."""
    if key is None:
        return Origin(os.urandom(32), is_repeatable=False)
    if not 0 < len(key) <= _KEY_MAX or not key.isprintable():
        raise wrong(FieldError(HEADER, f"must be 1 to {_KEY_MAX} printable characters"))
    token = blake2b("\0".join((caller.actor, route, key)).encode(), digest_size=32).digest()
    used = blake2b("\0".join((caller.actor, key)).encode(), digest_size=16).digest()
    return Origin(token, is_repeatable=True, route=route, key=used)


def nobodys(made: Origin) -> Origin:
    """Return the same origin of ids for a request that we make ourselves: it claims no key."""
    return replace(made, key=b"")
