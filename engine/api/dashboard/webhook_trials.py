"""Settings → Webhooks: a new secret, and a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Response

from engine.api.dashboard import payload_view, words
from engine.api.dashboard.endpoint import ADVICE
from engine.api.dashboard.forms import NOT_SENT, WHOLE, FormRefusal, checked, once, refused
from engine.api.dashboard.payload_view import Shown
from engine.api.dashboard.render import page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import Manages, Visit
from engine.api.dashboard.webhook_edit import TICKS_MAX
from engine.api.dashboard.webhooks import away
from engine.api.endpoint_rules import answer
from engine.api.endpoints import known
from engine.api.problems import FieldError, Problem, wrong
from engine.api.rotation import RotationAnswer, RotationInput, rotate_secret
from engine.api.test_sends import PING, tried
from engine.core.diagnosis import likely_cause
from engine.core.duration import parse_duration
from engine.core.endpoint import Endpoint
from engine.core.model import AttemptFinished, MessagePublished
from engine.core.profile import Profile, render
from engine.core.replay import SendTest, ping_id

router = APIRouter()
_S = 1_000_000
_ROTATION = {"secret": "New secret", "overlap_seconds": "Overlap"}
_TRIAL = {"event_type": "Event type"}


@router.get("/webhooks/{endpoint_id}/rotate")
async def show_rotation(visit: Manages, endpoint_id: str) -> Response:
    """Say what a new secret would do, and ask for it."""
    return _rotation(visit, endpoint_id, NOT_SENT, once())


@router.post("/webhooks/{endpoint_id}/rotate")
async def rotate(visit: Manages, endpoint_id: str) -> Response:
    """Sign with a new secret from soon on, and show it in this very answer."""
    mark = one(visit.form, "once") or None
    try:
        made = await rotate_secret(endpoint_id, visit.services, visit.caller, _rotation_of(visit), mark)
        endpoint = known(visit.services, visit.caller, endpoint_id)
    except Problem as problem:
        return _rotation(visit, endpoint_id, refused(problem, tuple(_ROTATION)), once(visit.form, problem))
    return page(
        visit,
        "webhook_secret.html",
        endpoint=answer(endpoint),
        secret=made.secret or "",
        rotation=_told(endpoint, made),
    )


@dataclass(frozen=True, slots=True)
class Rotated:
    """From when on the new secret signs, and until when the old one does; microseconds, 0: no more."""

    effective_at: str
    old_until: int


def _told(endpoint: Endpoint, made: RotationAnswer) -> Rotated:
    now = endpoint.secrets[-1]
    old = max((each.expires_at for each in endpoint.secrets[:-1]), default=0)
    return Rotated(made.effective_at, old if old > now.effective_at else 0)


def _rotation_of(visit: Visit) -> RotationInput:
    """Read the form; Problem 422."""
    overlap = one(visit.form, "overlap_seconds").strip()
    given = {"secret": one(visit.form, "secret").strip() or None, "overlap_seconds": _seconds(overlap)}
    return checked(RotationInput, given)


def _seconds(text: str) -> int | None:
    """`24h` -> 86400, `0` -> 0, nothing -> None: the profile's. Problem 422."""
    if not text:
        return None
    try:
        return 0 if text == "0" else parse_duration(text) // _S
    except ValueError as error:
        raise wrong(FieldError("overlap_seconds", str(error))) from None


def _rotation(visit: Visit, endpoint_id: str, why: FormRefusal, mark: str) -> Response:
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    return page(
        visit,
        "webhook_rotate.html",
        why.status,
        endpoint=answer(endpoint),
        profile=visit.services.context.profiles.get(endpoint.settings.profile),
        errors=why.errors,
        refused=why,
        labels=_ROTATION,
        once=mark,
        overlap=one(visit.form, "overlap_seconds"),
        typed_secret=bool(one(visit.form, "secret")),
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """A test that was sent, and what was answered."""

    attempt: AttemptFinished
    cause: str
    advice: str
    headers: Mapping[str, str]
    body: Shown
    answered: Shown
    repeated: bool
    """Whether the form was sent again: the answer is that of the first time."""


@router.get("/webhooks/{endpoint_id}/test")
async def show_test(visit: Manages, endpoint_id: str) -> Response:
    """Ask what to send."""
    return _tested(visit, endpoint_id, NOT_SENT, None)


@router.post("/webhooks/{endpoint_id}/test")
async def test(visit: Manages, endpoint_id: str) -> Response:
    """Send it, wait, and show what was sent and answered."""
    event_type, mark = one(visit.form, "event_type") or PING, one(visit.form, "once") or None
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
        command, attempt = await tried(visit.services, visit.caller, endpoint_id, event_type, mark)
    except Problem as problem:
        return _tested(visit, endpoint_id, refused(problem, tuple(_TRIAL)), None)
    profile = visit.services.context.profile(endpoint.settings.profile)
    return _tested(visit, endpoint_id, NOT_SENT, trial_of(profile, endpoint, command, attempt))


def trial_of(profile: Profile, endpoint: Endpoint, command: SendTest, attempt: AttemptFinished) -> Trial:
    """Tell a test: the request is made again, of the same settings, as the groups have made it."""
    repeated = attempt.attempted_at < command.requested_at
    at = attempt.accepted_at if repeated else command.requested_at
    message = MessagePublished(
        command.tenant, ping_id(command.command_id), command.event_type, command.payload, at
    )
    answered = attempt.response_body.decode(errors="replace")
    failed = attempt.outcome != "success"
    return Trial(
        attempt,
        likely_cause(attempt.error_class, attempt.status_code, attempt.request_bytes) if failed else "",
        ADVICE.get(attempt.error_class, ""),
        payload_view.headers_of(profile, endpoint, message, 1, attempt.attempted_at),
        payload_view.shown(render(profile, message), "raw"),
        Shown(answered[: payload_view.SHOWN_MAX], len(answered) <= payload_view.SHOWN_MAX),
        repeated,
    )


def _tested(visit: Visit, endpoint_id: str, why: FormRefusal, trial: Trial | None) -> Response:
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    profile = visit.services.context.profiles.get(endpoint.settings.profile)
    default_us = 0 if profile is None else profile.policy.timeout_us
    known_types = visit.services.configuration.event_types
    types = [name for name in sorted(known_types) if known_types[name].example and name != PING]
    return page(
        visit,
        "webhook_test.html",
        why.status,
        endpoint=answer(endpoint),
        timeout=words.milliseconds(endpoint.settings.timeout_ms or default_us / 1_000),
        types=types[:TICKS_MAX],
        chosen=one(visit.form, "event_type") or PING,
        errors=why.errors,
        refused=why,
        whole=why.errors.get(WHOLE, ""),
        labels=_TRIAL,
        once=once(),
        trial=trial,
    )
