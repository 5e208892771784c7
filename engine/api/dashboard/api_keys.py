"""Keys: the API keys of a tenant or the platform; made, shown once, revoked."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Response

from engine.api.dashboard.confirm import Question, ask
from engine.api.dashboard.deliveries import utc_of
from engine.api.dashboard.forms import NOT_SENT, FormRefusal, checked, once, refused
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.render import done, page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import Administers, Visit
from engine.api.keys import KeyInput, create_key, list_keys, revoke_key
from engine.api.problems import FieldError, Problem, wrong
from engine.core.directory import SCOPES, ApiKey

router = APIRouter()
NAV = NavItem("keys", "Keys", "key", "Settings", "admin")
_PAGE = 100
WORD = "revoke"
LABELS = {"description": "Description", "scopes": "Scopes", "owner": "Tenant", "expires_at": "Expires"}
MEANS: Mapping[str, str] = {
    "admin": "everything, keys too",
    "manage": "add, change and test endpoints; look at everything",
    "publish": "publish messages",
    "read": "look at everything, change nothing",
}
"""What a scope allows, in the tenant that the key is bound to, or everywhere."""


@router.get("/keys")
async def show_keys(visit: Administers, cursor: str | None = None) -> Response:
    """Show the keys that are not revoked, oldest first."""
    found = await list_keys(visit.services, visit.caller, visit.tenant, _PAGE, cursor)
    more = found.next and visit.url("keys", cursor=found.next)
    now_us = visit.services.context.clock.now()
    known = visit.services.configuration.keys
    expired = {key.id for key in found.data if _is_over(known.get(key.id), now_us)}
    return page(visit, "keys.html", rows=found.data, more=more, expired=expired, means=MEANS)


def _is_over(key: ApiKey | None, now_us: int) -> bool:
    return key is not None and 0 < key.expires_at <= now_us


@router.get("/keys/new")
async def show_new_key(visit: Administers) -> Response:
    """Show the form of a new key."""
    return _form(visit, NOT_SENT, once())


@router.post("/keys/new")
async def add_key(visit: Administers) -> Response:
    """Make a key, and show it in this very answer."""
    mark = one(visit.form, "once") or None
    try:
        made = await create_key(_given(visit), visit.services, visit.caller, mark)
    except Problem as problem:
        return _form(visit, refused(problem, tuple(LABELS)), once(visit.form, problem))
    return page(visit, "key_secret.html", 201, key=made.key or "", made=made)


def _given(visit: Visit) -> KeyInput:
    """Read the form; Problem 422."""
    scopes = list(visit.form.get("scopes", ()))
    if not scopes:
        raise wrong(FieldError("scopes", "are none: tick at least one"))
    given = {
        "tenant": one(visit.form, "owner").strip() or None,
        "scopes": scopes,
        "description": one(visit.form, "description").strip(),
        "expires_at": utc_of(one(visit.form, "expires_at").strip()) or None,
    }
    return checked(KeyInput, given)


def _form(visit: Visit, why: FormRefusal, mark: str) -> Response:
    return page(
        visit,
        "key_form.html",
        why.status,
        form=visit.form,
        given={name: one(visit.form, name) for name in LABELS},
        tenant=one(visit.form, "owner") if visit.form else visit.tenant or "",
        scopes=[scope for scope in SCOPES if visit.may(scope)],
        ticked=set(visit.form.get("scopes", ())),
        means=MEANS,
        errors=why.errors,
        refused=why,
        labels=LABELS,
        once=mark,
    )


@router.get("/keys/{key_id}/revoke")
async def ask_to_revoke(visit: Administers, key_id: str) -> Response:
    """Say what it would do, and ask for a word."""
    return _asked(visit, key_id)


@router.post("/keys/{key_id}/revoke")
async def revoke(visit: Administers, key_id: str) -> Response:
    """Revoke it, once the word was typed."""
    if one(visit.form, "word").strip() != WORD:
        return _asked(visit, key_id, f"type the word {WORD} to go on; nothing was revoked")
    try:
        await revoke_key(key_id, visit.services, visit.caller)
    except Problem as problem:
        return _no_key(visit, key_id, problem)
    return done(visit, visit.url("keys"), f"Key {key_id} is revoked.")


def _asked(visit: Visit, key_id: str, error: str = "") -> Response:
    key = visit.services.configuration.keys.get(key_id)
    if key is None or key.revoked_at or not visit.caller.sees(key.tenant):
        return _no_key(visit, key_id, Problem(404, f"there is no API key {key_id!r}"))
    said = ["Whoever uses it is refused from now on, and its sessions here end.", "It cannot be undone."]
    if visit.caller.actor == f"key:{key_id}":
        said.insert(0, "This is the key that you are logged in with: you will be logged out.")
    about = f"{key.id} {key.description}".strip()
    question = Question(
        "Revoke this key?", about, said, "Revoke it", visit.url("keys"), WORD, ("Keys", "keys")
    )
    return ask(visit, question, error)


def _no_key(visit: Visit, key_id: str, problem: Problem) -> Response:
    """Say that the key is not there, maybe since another tab revoked it; other problems go on."""
    if problem.status_code != 404:
        raise problem
    said = (
        f"{key_id} is not the id of a key that is valid and that you may see. Perhaps it is revoked already."
    )
    return page(visit, "missing.html", 404, title="There is no such key", said=said, back=("Keys", "keys"))
