"""The book of questions: every query of docs/queries.md, run on a history that was added up by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest

from tests.integration.history_fixtures import Store
from tests.integration.told_history import told

__all__ = ["told"]
pytestmark = pytest.mark.integration

BOOK = Path(__file__).parents[2] / "docs" / "queries.md"
PARAMETERS = {
    "since": "2026-11-16 00:00:00",
    "until": "2026-11-17 00:00:00",
    "tenant": "acme",
    "message": "m6",
    "endpoint": "ep_a1",
}
VIEWS = {
    *("accepted_messages", "delivery_status", "delivery_attempts", "failed_deliveries", "audit_trail"),
    *("endpoint_minutes", "endpoint_hours"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A section of the book."""

    number: int
    title: str
    sql: str
    names: Sequence[str]
    answer: Sequence[str]
    reading: str


EXPECTED: Mapping[int, Sequence[str]] = {
    1: [
        "ep_a1 | 5 | 2 | 40.0",
        "ep_a2 | 3 | 2 | 66.7",
    ],
    2: [
        "ep_a2 | 3 | [400, 4992, 4992]",
        "ep_a1 | 5 | [60, 200, 200]",
    ],
    3: [
        "ep_a2 | 1 | 2026-11-16 10:00:11 | 400 | success | 200 |  | delivered",
        "ep_a1 | 1 | 2026-11-16 10:00:12 | 50 | failure | 503 | http_5xx | retry",
        "ep_a1 | 2 | 2026-11-16 10:00:17 | 50 | failure | 503 | http_5xx | failed",
        "ep_a1 | 1 | 2026-11-16 11:20:01 | 90 | success | 200 |  | delivered",
    ],
    4: [
        "ep_a2 | first | delivered |  | 1 | 2026-11-16 10:00:11.400",
        "ep_a1 | first | failed | http_5xx | 2 | 2026-11-16 10:00:17.050",
        "ep_a1 | again | delivered |  | 1 | 2026-11-16 11:20:01.090",
    ],
    5: [
        "http_5xx | 503 | 2 | 1",
        "http_4xx | 404 | 1 | 1",
        "timeout | 0 | 1 | 1",
    ],
    6: [
        "call.finished | 2 | [0.6, 3.1]",
        "room.ended | 3 | [1.4, 31.2]",
    ],
    7: [
        "2026-11-16 10:00:00 | 6 | 100.0",
        "2026-11-16 11:00:00 | 1 | 100.0",
    ],
    8: [
        "1 | 4 | 80.0",
        "2 | 1 | 20.0",
    ],
    9: [
        "acme | ep_a1 | http_5xx | http_5xx | 503 | 1 | 2026-11-16 10:00:17.050",
    ],
    10: [
        "acme | ep_a1 | 60.0 | 25.0",
        "acme | ep_a2 | 33.3 | 0.0",
    ],
    11: [
        "2026-11-16 10:00:00 | acme | 7 | 4600",
        "2026-11-16 10:00:00 | beta | 1 | 2000",
        "2026-11-16 11:00:00 | acme | 1 | 600",
        "2026-11-16 11:00:00 | beta | 1 | 2000",
    ],
    12: [
        "acme | room.ended | 3 | 1800 | 600",
        "beta | call.finished | 3 | 6000 | 2000",
        "acme | recording.ready | 1 | 1000 | 1000",
    ],
    13: [
        "2026-11-16 11:30:00 | key:k1 | endpoint | ep_a9 | command_rejected",
        "2026-11-16 10:45:00 | health | endpoint | ep_a2 | disabled",
    ],
    14: [
        "acme | ep_a1 | 2 | 2026-11-16 10:30:00 | 1",
    ],
    15: [
        "acme | ep_a1 | m7 | 1 | 2026-11-16 10:35:00 | 48300",
    ],
    16: [
        "call.finished | 3 | 2 | 2 | 0.67 | 0.67",
        "recording.ready | 1 | 1 | 1 | 1.0 | 1.0",
        "room.ended | 3 | 5 | 6 | 1.67 | 2.0",
    ],
    17: [
        "beta | call.finished | 1 | 2026-11-16 10:05:00",
    ],
    18: [
        "acme | ep_a2 | disabled | 1",
    ],
    19: [
        "acme | ep_a2 | 2026-11-16 10:00:00 | 2026-11-16 10:00:00",
        "acme | ep_a1 | 2026-11-16 11:20:00 | 2026-11-16 10:30:00",
    ],
    20: [
        "acme | ep_a1 | delivered | 1 | 1",
    ],
    21: [
        "2026-11-16 10:00:00 | 6",
        "2026-11-16 10:30:00 | 1",
        "2026-11-16 11:20:00 | 1",
    ],
    22: [
        "2026-11-16 10:30:01 | m7 | 404 | http_4xx | HTTP 404 | no such page",
        "2026-11-16 10:00:17 | m6 | 503 | http_5xx | HTTP 503 | busy",
        "2026-11-16 10:00:12 | m6 | 503 | http_5xx | HTTP 503 | busy",
    ],
    23: [
        "2026-11-16 10:00:00 | 7 | 42.9",
        "2026-11-16 11:00:00 | 1 | 100.0",
    ],
    24: [
        "delivered | 8 | 61.5",
        "failed | 2 | 15.4",
        "pending | 2 | 15.4",
        "skipped | 1 | 7.7",
    ],
}


@cache
def book() -> dict[int, Question]:
    """The questions by number; a section that is not made as the others are fails here."""
    sections = re.split(r"^## ", BOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {question.number: question for question in map(parsed, sections)}


def parsed(section: str) -> Question:
    """Title, question, SQL, answer, how to read it."""
    shape = r"(\d+)\. (.+\?)\n\n.+?\n\n```sql\n(.+?)\n```\n\n((?:\|.*\n)+)\n(.+)"
    found = re.fullmatch(shape, section, re.DOTALL)
    assert found is not None, section
    names, _, *rows = (" | ".join(cells(line)) for line in found[4].splitlines())
    return Question(int(found[1]), found[2], found[3], names.split(" | "), rows, found[5])


def cells(line: str) -> list[str]:
    """Cells of a row of a table."""
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def shown(value: object) -> str:
    """A value as the book shows it: whole seconds without their zeros."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3].removesuffix(".000")
    return str(value)


def test_the_book_is_of_at_least_twenty() -> None:
    """Numbered from 1 without a gap, each with an expected answer, none asked twice."""
    assert list(book()) == list(range(1, len(book()) + 1)) == list(EXPECTED)
    assert len(book()) >= 20
    assert len({question.sql for question in book().values()}) == len(book())


@pytest.mark.parametrize("number", EXPECTED)
def test_answer(told: Store, number: int) -> None:
    """The query answers what was added up by hand, and the book shows just that."""
    question = book()[number]
    asked = set(re.findall(r"\{(\w+):\w+\}", question.sql))
    table = told.history.query(question.sql, {name: PARAMETERS[name] for name in asked})
    assert [" | ".join(map(shown, row)) for row in table.rows] == list(EXPECTED[number])
    assert (list(table.columns), list(question.answer)) == (list(question.names), list(EXPECTED[number]))


@pytest.mark.parametrize("number", EXPECTED)
def test_only_views_are_asked(number: int) -> None:
    """A table needs a word about its engine; a view does not."""
    sources = set(re.findall(r"(?:FROM|JOIN) (\w+)", book()[number].sql))
    assert sources
    assert sources <= VIEWS
    assert " FINAL" not in book()[number].sql
