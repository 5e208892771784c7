"""Who looks at a page: a signed cookie that names an API key, and the token that each change must carry.

The cookie holds the key's id, never the key; the key itself is looked up at
every request, so that revoking it ends its sessions. What signs is derived
from the master key: any API process takes a session that another began.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Request, Response
from itsdangerous import BadData, URLSafeSerializer

from engine.api.auth import Caller, held_by
from engine.api.problems import Problem
from engine.api.services import Services

COOKIE = "hooklog_session"
PATH = "/dashboard"
LASTS_S = 12 * 3_600
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
_FIELDS_MAX = 2_000
_US = 1_000_000
_SIGNER = {"key_derivation": "hmac", "digest_method": sha256}

Form = Mapping[str, Sequence[str]]


class EndedError(Exception):
    """There is no session, or no more; `reason` says why, for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie says; `actor` names the key, and is empty before login."""

    actor: str
    fingerprint: str
    """A few digits of the key's digest, keyed: another key under the same id is another session."""
    expires_at: int
    """Seconds since 1970 UTC."""
    nonce: str


class Seal:
    """Signs sessions and their tokens; by the master key of now, and accepts those of the previous."""

    def __init__(self, command_keys: Sequence[bytes]) -> None:
        keys = [_derived(key) for key in reversed(command_keys)]  # the last one signs
        self._fingerprint_key = keys[-1]
        self._sessions = URLSafeSerializer(keys, "session", signer_kwargs=_SIGNER)
        self._tokens = URLSafeSerializer(keys, "csrf", signer_kwargs=_SIGNER)

    def new(self, actor: str, digest: bytes, now_us: int) -> Session:
        """Begin a session now."""
        nonce = secrets.token_urlsafe(16)
        return Session(actor, self.fingerprint_of(digest), now_us // _US + LASTS_S, nonce)

    def fingerprint_of(self, digest: bytes) -> str:
        """Return what a session remembers of a key's digest."""
        return hmac.digest(self._fingerprint_key, digest, "sha256").hex()[:16]

    def text(self, session: Session) -> str:
        """Return the cookie's value."""
        return str(
            self._sessions.dumps([session.actor, session.fingerprint, session.expires_at, session.nonce])
        )

    def read(self, text: str, now_us: int) -> Session:
        """Return the session of a cookie; EndedError if it is not ours or over."""
        try:
            actor, fingerprint, expires_at, nonce = self._sessions.loads(text)
        except (BadData, ValueError, TypeError):
            raise EndedError("You are not logged in.") from None
        if expires_at <= now_us // _US:
            raise EndedError("Your session has ended: they last 12 hours.")
        return Session(actor, fingerprint, expires_at, nonce)

    def token(self, session: Session) -> str:
        """Return the token that forms of this session carry."""
        return str(self._tokens.dumps(session.nonce))

    def check(self, session: Session, token: str) -> None:
        """Problem 403 unless the token is this session's."""
        try:
            nonce = self._tokens.loads(token)
        except BadData:
            nonce = ""
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), session.nonce.encode()):
            raise Problem(
                403,
                "this form is not of your session (its token is missing or old), so nothing was done: "
                "go back, reload the page and send it again",
            )


def _derived(command_key: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, b"hooklog dashboard session").derive(command_key)


def current(request: Request, seal: Seal, services: Services) -> Session:
    """Return the session of a request's cookie, before or after login; EndedError."""
    text = request.cookies.get(COOKIE)
    if text is None:
        raise EndedError("")
    return seal.read(text, services.context.clock.now())


def caller_of(session: Session, seal: Seal, services: Services) -> Caller:
    """Return who holds the session's key, which is looked up anew; EndedError if it is valid no more."""
    if not session.actor:
        raise EndedError("")
    found = held_by(services, session.actor)
    if found is None or not hmac.compare_digest(seal.fingerprint_of(found.digest), session.fingerprint):
        raise EndedError("The API key of this session was revoked, has expired or was replaced.")
    return found.caller


def keep(request: Request, response: Response, seal: Seal, session: Session) -> None:
    """Set the cookie: not for scripts, not for other sites, over TLS only where the page came over it."""
    response.set_cookie(
        COOKIE,
        seal.text(session),
        max_age=LASTS_S,
        path=PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


async def read_form(request: Request) -> Form:
    """Read a form's fields, each with its values; Problem 415 or 422."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in ("application/x-www-form-urlencoded", ""):
        raise Problem(415, "send the form as application/x-www-form-urlencoded")
    body = await request.body()
    try:
        return parse_qs(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX
        )
    except ValueError:
        raise Problem(422, "the form cannot be read: it is no UTF-8, or has too many fields") from None


def one(form: Form, name: str) -> str:
    """Return a field's first value; empty without it."""
    return next(iter(form.get(name, ())), "")


async def checked_form(request: Request, seal: Seal, session: Session) -> Form:
    """Return the form of a request that changes something; Problem 403 without this session's token."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "this request came from another site, so nothing was done")
    form = await read_form(request)
    seal.check(session, request.headers.get(CSRF_HEADER) or one(form, CSRF_FIELD))
    return form
