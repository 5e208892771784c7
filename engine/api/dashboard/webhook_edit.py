"""Settings → Webhooks: adding an endpoint and changing one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Response

from engine.api.dashboard import webhook_draft as drafts
from engine.api.dashboard import words
from engine.api.dashboard.endpoint import gone
from engine.api.dashboard.forms import NOT_SENT, WHOLE, FormRefusal, checked, once, refused, whole
from engine.api.dashboard.render import done, page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import Manages, Visit
from engine.api.dashboard.webhook_draft import LABELS, Draft, Moved
from engine.api.endpoint_rules import answer
from engine.api.endpoints import CREATION, create, known, update_endpoint
from engine.api.ids import origin
from engine.api.models import CreatedAnswer, EndpointAnswer, EndpointInput, EndpointPatch
from engine.api.problems import Problem
from engine.core.endpoint import Endpoint
from engine.core.profile import Profile

router = APIRouter()
TICKS_MAX = 300
"""Event types that have a box to tick; others are typed."""
_DELETED = (
    "Somebody has deleted this endpoint meanwhile, so nothing was changed. What you wrote is still here: "
    "send it to add a new endpoint, which gets another id and another secret."
)
_MOVED = "Somebody else has changed this endpoint since you opened the form, so nothing was saved yet."
_OUTDATED = frozenset({409, 412})


@dataclass(frozen=True, slots=True)
class Sheet:
    """The form as it is shown."""

    draft: Draft
    once: str
    tenant: str = ""
    endpoint: EndpointAnswer | None = None
    """None: for a new one."""
    base: str = ""
    """The draft that the form was made from, packed."""
    refused: FormRefusal = NOT_SENT
    moved: Sequence[Moved] = ()
    is_outdated: bool = False
    """Whether the endpoint was changed since the form was made."""
    is_base_known: bool = True
    """Whether the form came back with what it was made from: without it nobody can tell what was changed."""


@dataclass(frozen=True, slots=True)
class ProfileTold:
    """What a profile does, in words."""

    name: str
    timeout: str
    retries: str
    rotation: str
    success: str
    gone: str


@router.get("/webhooks/new")
async def show_new(visit: Manages) -> Response:
    """Show the form of a new endpoint."""
    return _form(visit, Sheet(Draft(), once(), visit.tenant or ""))


@router.post("/webhooks/new")
async def add(visit: Manages) -> Response:
    """Add an endpoint, and show its secret in this very answer."""
    draft, tenant = drafts.blank(drafts.of_form(visit.form)), one(visit.form, "owner").strip()
    if "more" in visit.form:
        return _form(visit, Sheet(_longer(draft), once(visit.form), tenant))
    try:
        made = await _created(visit, draft, tenant)
    except Problem as problem:
        sheet = Sheet(draft, once(visit.form, problem), tenant, refused=refused(problem, tuple(LABELS)))
        return _form(visit, sheet)
    return page(visit, "webhook_secret.html", 201, endpoint=made, secret=made.secret or "", rotation=None)


async def _created(visit: Visit, draft: Draft, tenant: str) -> CreatedAnswer:
    secret = one(visit.form, "secret").strip()
    given = drafts.settings(draft, {})
    given |= {"tenant": tenant or None, "secret": secret or None}
    made = origin(visit.caller, CREATION, one(visit.form, "once") or None)
    body = checked(EndpointInput, given)
    return await create(visit.services, (visit.caller, made), body, Response())


@router.get("/webhooks/{endpoint_id}/edit")
async def show_edit(visit: Manages, endpoint_id: str) -> Response:
    """Show the form of an endpoint as it is."""
    try:
        endpoint = answer(known(visit.services, visit.caller, endpoint_id))
    except Problem:
        return gone(visit, endpoint_id)
    draft = drafts.of_endpoint(endpoint)
    return _form(visit, Sheet(draft, once(), endpoint.tenant, endpoint, drafts.packed(draft)))


@router.post("/webhooks/{endpoint_id}/edit")
async def edit(visit: Manages, endpoint_id: str) -> Response:
    """Change what was changed in the form, if nobody else has changed the endpoint meanwhile."""
    draft = drafts.of_form(visit.form)
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
        if "more" in visit.form:
            return _again(visit, answer(endpoint), _longer(draft), NOT_SENT)
        changed = await _saved(visit, endpoint, draft)
    except Problem as problem:
        return _refused(visit, endpoint_id, draft, problem)
    said = "The changes are saved." if changed else "Nothing was changed: the form was as the endpoint is."
    return done(visit, visit.url(f"endpoints/{endpoint_id}"), said)


async def _saved(visit: Visit, endpoint: Endpoint, draft: Draft) -> bool:
    """Send the API what differs, for the version that the form was made from; whether anything does."""
    version = one(visit.form, "version")
    if version != str(endpoint.version):
        raise Problem(412, _MOVED)
    names = drafts.changed(draft, drafts.of_endpoint(answer(endpoint)))
    if not names:
        return False
    kept = await _kept(visit, endpoint) if "headers" in names else dict(endpoint.settings.headers)
    given = drafts.settings(draft, kept)
    body = checked(EndpointPatch, {name: given[name] for name in names})
    await update_endpoint(endpoint.id, body, visit.services, visit.caller, f'"{version}"')
    return True


async def _kept(visit: Visit, endpoint: Endpoint) -> dict[str, str]:
    """Values of the endpoint's headers, which the API wants all or none of; Problem 503."""
    await visit.services.control.secret_of(endpoint)  # once that opens, they do
    keyring = visit.services.configuration.keyring
    return dict(keyring.headers((endpoint.tenant, endpoint.id), endpoint.settings))


def _refused(visit: Visit, endpoint_id: str, draft: Draft, problem: Problem) -> Response:
    """Show the form again with what is wrong; of an endpoint that is gone, as one for a new endpoint."""
    endpoint = visit.services.configuration.endpoints.get(endpoint_id)
    if endpoint is None or not visit.caller.sees(endpoint.tenant):
        return gone(visit, endpoint_id)
    if endpoint.deleted:
        why = FormRefusal(404, {WHOLE: _DELETED})
        return _form(visit, Sheet(drafts.blank(draft), once(), endpoint.tenant, refused=why))
    now = answer(endpoint)
    if problem.status_code in _OUTDATED and one(visit.form, "version") != str(now.version):
        return _moved(visit, now, draft)
    return _again(visit, now, draft, refused(problem, tuple(LABELS)))


def _again(visit: Visit, endpoint: EndpointAnswer, draft: Draft, why: FormRefusal) -> Response:
    """The same form: it stays one of the version that it was made from."""
    version, base = whole(one(visit.form, "version")), one(visit.form, "base")
    told = endpoint.model_copy(update={"version": version if isinstance(version, int) else 0})
    return _form(visit, Sheet(draft, once(visit.form), endpoint.tenant, told, base, why))


def _moved(visit: Visit, now: EndpointAnswer, draft: Draft) -> Response:
    """Show what was changed by whom, and the form of the endpoint of now with what was typed."""
    fresh = drafts.of_endpoint(now)
    was = drafts.unpacked(one(visit.form, "base"))
    carried, moved = drafts.merged(draft, was or fresh, fresh)
    base, why = drafts.packed(fresh), FormRefusal(409, {WHOLE: _MOVED})
    return _form(
        visit,
        Sheet(
            carried,
            once(visit.form),
            now.tenant,
            now,
            base,
            why,
            moved,
            is_outdated=True,
            is_base_known=was is not None,
        ),
    )


def _longer(draft: Draft) -> Draft:
    """The same with one more empty row for a header."""
    return replace(draft, headers=(*draft.headers, drafts.HeaderRow()))


def _form(visit: Visit, sheet: Sheet) -> Response:
    known_types = visit.services.configuration.event_types
    shown = sorted(known_types)[:TICKS_MAX]
    profiles = visit.services.context.profiles
    tenant = visit.caller.tenant or sheet.tenant
    return page(
        visit,
        "webhook_form.html",
        sheet.refused.status,
        sheet=replace(sheet, tenant=tenant),
        draft=sheet.draft,
        refused=sheet.refused,
        errors=sheet.refused.errors,
        labels=LABELS,
        types={name: known_types[name].description for name in shown},
        others=[name for name in sheet.draft.types if name not in shown],
        profiles=[told_of(profiles[name]) for name in sorted(profiles)],
        typed_secret=bool(one(visit.form, "secret")) and sheet.endpoint is None,
    )


def told_of(profile: Profile) -> ProfileTold:
    """Say what a profile does."""
    policy = profile.policy
    codes = policy.success_codes
    return ProfileTold(
        profile.name,
        words.milliseconds(policy.timeout_us / 1_000),
        ", ".join(words.milliseconds(delay / 1_000) for delay in policy.delays_us) or "none",
        overlap_of(profile),
        "any 2xx" if codes is None else ", ".join(map(str, sorted(codes))),
        "disables the endpoint" if policy.gone_disables else "is a failure like any other",
    )


def overlap_of(profile: Profile) -> str:
    """How long an old secret signs too, in words."""
    if not profile.rotation_overlap_us:
        return "the old secret stops at once"
    return f"the old secret signs too for {words.milliseconds(profile.rotation_overlap_us / 1_000)}"
