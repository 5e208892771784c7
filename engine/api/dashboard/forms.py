"""What forms share: what was wrong by field, and a mark that makes sending one twice harmless."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from engine.api.dashboard.session import Form, one
from engine.api.ids import HEADER
from engine.api.problems import FieldError, Problem, wrong

M = TypeVar("M", bound=BaseModel)
ONCE = "once"
"""Field of the mark: the form's Idempotency-Key."""
WHOLE = ""
"""Stands for what is wrong, but with no field."""
_CALLED = {"tenant": "owner"}
"""Fields that forms call otherwise than the API: `tenant` on every page is what is looked at."""
_SENT_BEFORE = "this form was sent before with other values: look at what that did, then send it again"
_BETTER = {
    "int_type": "must be a whole number",
    "float_type": "must be a number such as 10 or 0.5",
    "finite_number": "must be a number such as 10 or 0.5",
}
"""By pydantic's name for what is wrong, words for people who typed it."""


@dataclass(frozen=True, slots=True)
class FormRefusal:
    """Why a form was not taken; without errors: it was not sent yet."""

    status: int = 200
    errors: Mapping[str, str] = field(default_factory=dict)
    """By field, in the order of the form; `WHOLE` first."""

    @property
    def first(self) -> str:
        """The field to put right first."""
        return next((name for name in self.errors if name != WHOLE), WHOLE)


NOT_SENT = FormRefusal()


def refused(problem: Problem, names: Sequence[str]) -> FormRefusal:
    """Sort what the API says is wrong to the form's fields; what is none of theirs is about the whole."""
    said: dict[str, list[str]] = {}
    for error in problem.errors or (FieldError(WHOLE, str(problem.detail)),):
        place, text = _placed(error, names)
        said.setdefault(place, []).append(text)
    return FormRefusal(
        problem.status_code, {name: "; ".join(said[name]) for name in (WHOLE, *names) if name in said}
    )


def _placed(error: FieldError, names: Sequence[str]) -> tuple[str, str]:
    """(the field of the form, what to say there)."""
    name, _, inside = error.field.partition(".")
    name = _CALLED.get(name, name)
    if name in names or name == WHOLE:
        is_named = bool(inside) and not inside.isdecimal()
        return name, f"{inside}: {error.message}" if is_named else error.message
    return WHOLE, _SENT_BEFORE if name == HEADER else f"{error.field}: {error.message}"


def checked(model: type[M], given: Mapping[str, object]) -> M:
    """Return the body of a request of /v1 with these values; Problem 422 as it would have been there."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    raise wrong(*(FieldError(_name(e["loc"]), _said(e["type"], e["msg"])) for e in found))


def _name(location: Sequence[object]) -> str:
    return ".".join(str(part) for part in location)


def _said(kind: str, text: str) -> str:
    return _BETTER.get(kind, text.removeprefix("Value error, "))


def once(form: Form | None = None, problem: Problem | None = None) -> str:
    """Return the form's mark; a new one for a new form, and where the old one stands for other values."""
    named = {} if problem is None else dict(problem.errors)
    if form is None or HEADER in named or not one(form, ONCE):
        return secrets.token_urlsafe(16)
    return one(form, ONCE)


def number(text: str) -> object:
    """`10` -> 10.0, nothing -> None; what is no number stays as it is, for the API to refuse."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def whole(text: str) -> object:
    """`15000` -> 15000, nothing -> None; what is no whole number stays as it is, for the API to refuse."""
    return int(text) if text.isdecimal() and len(text) < 10 else text or None
