"""From what a person wrote about an endpoint to settings that can be delivered with, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from engine.api.models import HEADER_MASK, EndpointAnswer, EndpointInput, EndpointPatch
from engine.api.problems import FieldError, Problem, wrong
from engine.core.change import EndpointSettings
from engine.core.duration import format_duration, parse_duration
from engine.core.egress import check_url
from engine.core.endpoint import Endpoint
from engine.core.profile import Profile, check_secret, header_names, rfc3339
from engine.runtime.configuration.decisions import UNSEALABLE
from engine.runtime.context import Context

_MS = 1_000
SETTINGS = (
    "url",
    "event_types",
    "profile",
    "headers",
    "description",
    "retry_policy",
    "timeout_ms",
    "rate_limit",
)


def settings_of(given: EndpointInput | EndpointPatch) -> EndpointSettings:
    """Translate to the log's units; nothing is checked here."""
    policy, types = given.retry_policy, given.event_types
    return EndpointSettings(
        url=given.url,
        event_types=None if types is None else tuple(dict.fromkeys(types)),
        profile=given.profile,
        headers=dict(given.headers),
        description=given.description,
        retry_policy=None if policy is None else tuple(parse_duration(delay) // _MS for delay in policy),
        timeout_ms=given.timeout_ms,
        rate_limit=given.rate_limit,
    )


@contextmanager
def sealing() -> Iterator[None]:
    """Problem 503 when the tenant's data key does not open: control has wrapped it by another master key."""
    try:
        yield
    except ValueError:
        raise Problem(503, UNSEALABLE) from None


def check_settings(context: Context, settings: EndpointSettings, secret: str | None) -> Profile:
    """Return the profile; Problem 422 names every field that breaks a rule."""
    profile = context.profiles.get(settings.profile)
    if profile is None:
        known = ", ".join(sorted(context.profiles))
        raise wrong(FieldError("profile", f"there is no profile {settings.profile!r}; there are {known}"))
    errors = [
        *_failed("url", lambda: _check_url(context, settings.url, profile)),
        *_failed("headers", lambda: _check_headers(settings.headers, profile)),
        *_failed("secret", lambda: None if secret is None else check_secret(profile, secret)),
    ]
    if errors:
        raise wrong(*errors)
    return profile


def answer(endpoint: Endpoint) -> EndpointAnswer:
    """What people see of an endpoint: never a secret, and of its own headers the names."""
    settings = endpoint.settings
    policy, types = settings.retry_policy, settings.event_types
    return EndpointAnswer(
        id=endpoint.id,
        tenant=endpoint.tenant,
        url=settings.url,
        event_types=None if types is None else list(types),
        profile=settings.profile,
        headers=dict.fromkeys(settings.headers, HEADER_MASK),
        description=settings.description,
        retry_policy=None if policy is None else [format_duration(delay * _MS) for delay in policy],
        timeout_ms=settings.timeout_ms,
        rate_limit=settings.rate_limit,
        enabled=endpoint.enabled,
        disabled_reason=endpoint.disabled_reason,
        created_at=rfc3339(endpoint.created_at),
        updated_at=rfc3339(endpoint.updated_at),
        version=endpoint.version,
    )


def _check_url(context: Context, url: str, profile: Profile) -> None:
    """`https_only = "always"` gives way only where private networks are allowed: in `hooklog dev`."""
    allowed = context.settings.egress_allow
    private = bool(allowed)
    allow_http = context.settings.allow_http and (private or profile.https_only != "always")
    check_url(url, allow_http=allow_http, private=private, allowed=allowed)


def _check_headers(headers: Mapping[str, str], profile: Profile) -> None:
    sent = header_names(profile)
    for name in headers:
        if name.lower() in sent:
            raise ValueError(f"{name} is set by the profile {profile.name} and cannot be chosen")


def _failed(field: str, check: Callable[[], None]) -> list[FieldError]:
    try:
        check()
    except ValueError as error:
        return [FieldError(field, str(error))]
    return []
