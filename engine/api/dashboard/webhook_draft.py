"""An endpoint's settings as somebody has written them into the form, to the API's words and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import orjson
from pydantic import TypeAdapter, ValidationError

from engine.api.dashboard.forms import number, whole
from engine.api.dashboard.session import Form, one
from engine.api.models import HEADERS_MAX, EndpointAnswer
from engine.api.problems import FieldError, wrong

NO_RETRIES = "none"
_ALL = "all"
_BLANKS = 2
"""Empty rows for headers that a form offers at first."""
_WORDS = {True: "yes", False: "no"}
LABELS: Mapping[str, str] = {
    "owner": "Tenant",
    "url": "URL",
    "event_types": "Event types",
    "profile": "Profile",
    "secret": "Signing secret",
    "headers": "Headers of its own",
    "description": "Description",
    "rate_limit": "Rate limit",
    "timeout_ms": "Timeout",
    "retry_policy": "Retries",
    "enabled": "Enabled",
}
"""The form's fields in its order, by the API's names but for the tenant."""


@dataclass(frozen=True, slots=True)
class HeaderRow:
    """A header; a kept one has a value already, which is not shown."""

    name: str = ""
    value: str = ""
    kept: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What the form's fields hold, unchecked."""

    url: str = ""
    all_types: bool = True
    types: tuple[str, ...] = ()
    """Sorted; empty for all."""
    profile: str = "standard"
    headers: tuple[HeaderRow, ...] = ()
    description: str = ""
    rate_limit: str = ""
    timeout_ms: str = ""
    retry_policy: str = ""
    """Empty: the profile's."""
    enabled: bool = True

    @property
    def rows(self) -> tuple[HeaderRow, ...]:
        """Headers, and empty rows to write others into."""
        return (*self.headers, *[HeaderRow()] * min(_BLANKS, HEADERS_MAX - len(self.headers)))


_DRAFT = TypeAdapter(Draft)


def of_form(form: Form) -> Draft:
    """Read a form's fields."""
    ticked = (*form.get("types", ()), *one(form, "event_types").replace(",", " ").split())
    all_types = one(form, "which") == _ALL
    return Draft(
        url=one(form, "url").strip(),
        all_types=all_types,
        types=tuple(sorted(set(ticked))),
        profile=one(form, "profile"),
        headers=_headers(form),
        description=one(form, "description").replace("\r\n", "\n").strip(),
        rate_limit=one(form, "rate_limit").strip(),
        timeout_ms=one(form, "timeout_ms").strip(),
        retry_policy=" ".join(one(form, "retry_policy").replace(",", " ").split()),
        enabled="enabled" in form,
    )


def _headers(form: Form) -> tuple[HeaderRow, ...]:
    """Rows that say something; their fields are numbered."""
    count = max((len(form.get(name, ())) for name in ("header_name", "header_value")), default=0)
    names, values = _column(form, "header_name", count), _column(form, "header_value", count)
    kept, removed = set(form.get("header_kept", ())), set(form.get("header_removed", ()))
    rows = (
        HeaderRow(name.strip(), value.strip(), name in kept, name in kept and name in removed)
        for name, value in zip(names, values, strict=True)
    )
    return tuple(row for row in rows if row.name or row.value)


def _column(form: Form, name: str, count: int) -> list[str]:
    found = list(form.get(name, ()))
    return found + [""] * (count - len(found))


def of_endpoint(endpoint: EndpointAnswer) -> Draft:
    """Return the form of an endpoint as it is."""
    policy, types = endpoint.retry_policy, endpoint.event_types
    return Draft(
        url=endpoint.url,
        all_types=types is None,
        types=tuple(sorted(types or ())),
        profile=endpoint.profile,
        headers=tuple(HeaderRow(name, kept=True) for name in endpoint.headers),
        description=endpoint.description,
        rate_limit="" if endpoint.rate_limit is None else f"{endpoint.rate_limit:.12g}",
        timeout_ms="" if endpoint.timeout_ms is None else str(endpoint.timeout_ms),
        retry_policy="" if policy is None else " ".join(policy) or NO_RETRIES,
        enabled=endpoint.enabled,
    )


def settings(draft: Draft, kept: Mapping[str, str]) -> dict[str, object]:
    """Return the API's fields of a draft; `kept`: values of the headers that stay. Problem 422."""
    return {
        "url": draft.url,
        "event_types": None if draft.all_types else _chosen(draft),
        "profile": draft.profile,
        "headers": _values(draft, kept),
        "description": draft.description,
        "rate_limit": number(draft.rate_limit),
        "timeout_ms": whole(draft.timeout_ms),
        "retry_policy": _policy(draft.retry_policy),
        "enabled": draft.enabled,
    }


def _chosen(draft: Draft) -> list[str]:
    if not draft.types:
        raise wrong(FieldError("event_types", "are none: tick at least one, or choose all event types"))
    return list(draft.types)


def _values(draft: Draft, kept: Mapping[str, str]) -> dict[str, str]:
    rows = [row for row in draft.headers if not row.removed]
    if len({row.name.lower() for row in rows}) != len(rows):
        raise wrong(FieldError("headers", "must not hold the same name twice"))
    missing = [row.name for row in rows if row.kept and not row.value and row.name not in kept]
    if missing:
        raise wrong(FieldError("headers", f"{', '.join(missing)}: has no value any more, give it one"))
    return {row.name: row.value or (kept[row.name] if row.kept else "") for row in rows}


def _policy(text: str) -> list[str] | None:
    if text == NO_RETRIES:
        return []
    return text.split() or None


def changed(draft: Draft, base: Draft) -> set[str]:
    """Names, as the API has them, of what differs."""
    differing = {each.name for each in fields(Draft) if getattr(draft, each.name) != getattr(base, each.name)}
    if draft.all_types and base.all_types:
        differing -= {"types"}
    return {_api(name) for name in differing}


def _api(name: str) -> str:
    """Return the API's name of a field."""
    return "event_types" if name in ("types", "all_types") else name


@dataclass(frozen=True, slots=True)
class Moved:
    """A field that somebody has changed: others, who fills the form, or both; what was typed is kept."""

    label: str
    was: str
    now: str
    is_theirs: bool
    is_typed: bool


def merged(typed: Draft, was: Draft, now: Draft) -> tuple[Draft, list[Moved]]:
    """Carry what was typed over to the endpoint as it is now: (the draft, what was changed)."""
    mine, theirs = changed(typed, was), changed(now, was)
    theirs_only = theirs - mine
    taken = {each.name: getattr(now, each.name) for each in fields(Draft) if _api(each.name) in theirs_only}
    moved = [
        Moved(label, text(was, name), text(now, name), name in theirs, name in mine)
        for name, label in LABELS.items()
        if name in theirs | mine
    ]
    return replace(typed, **taken), moved


def text(draft: Draft, name: str) -> str:
    """Return a field as people read it, in a line."""
    match name:
        case "event_types":
            return "all" if draft.all_types else ", ".join(draft.types)
        case "headers":
            return ", ".join(row.name for row in draft.headers) or "none"
        case "enabled":
            return _WORDS[draft.enabled]
        case _:
            return str(getattr(draft, name)) or "not set"


def packed(draft: Draft) -> str:
    """Return what a form was made from, for the form to carry."""
    return orjson.dumps(draft).decode()


def unpacked(said: str) -> Draft | None:
    """Return what a form was made from; None if it carries no such thing."""
    try:
        return _DRAFT.validate_json(said)
    except ValidationError:
        return None


def blank(draft: Draft) -> Draft:
    """Return the same for a new endpoint: it has no values of headers to keep."""
    rows = (replace(row, kept=False) for row in draft.headers if not row.removed)
    return replace(draft, headers=tuple(rows))
