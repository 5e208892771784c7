"""Asking before something is done that cannot be undone: a page, so that it needs no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Response

from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class Question:
    """What would be done, and how to say yes: by a button, and a word to type if there is one."""

    title: str
    about: str
    said: Sequence[str]
    """What it does, a paragraph each."""
    label: str
    back: str
    """Address of where no leads to."""
    word: str
    above: tuple[str, str]
    """Label and path of the page above this one."""


def ask(visit: Visit, question: Question, error: str = "") -> Response:
    """Show the question; its form goes to this very address."""
    return page(visit, "confirm.html", 422 if error else 200, question=question, error=error)
