"""Queries of the book and of the dashboards where there is nothing to tell: no value, and never NaN."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

from engine.runtime.history.rollups import touched
from engine.runtime.history.rows import columns, finished_rows
from tests.grafana.dashboards import CLICKHOUSE, Scene, dashboards, sql, targets
from tests.integration.history_fixtures import Store, attempt, record
from tests.integration.test_queries import PARAMETERS, book

pytestmark = pytest.mark.integration

PANELS = [each for board in dashboards().values() for each in targets(board) if each.kind == CLICKHOUSE]
PICKED = {"tenant": "acme", "endpoint": "ep1", "message": "m0"}


def values(rows: Sequence[Sequence[object]]) -> Iterator[object]:
    """All of them, those of lists too."""
    for row in rows:
        for value in row:
            yield from value if isinstance(value, (list, tuple)) else (value,)


def is_nan(value: object) -> bool:
    """Only NaN differs from itself."""
    return value != value  # noqa: PLR0124


def has_nan(store: Store, query: str, parameters: Mapping[str, str] | None = None) -> bool:
    """Whether an answer has one."""
    return any(map(is_nan, values(store.history.query(query, parameters).rows)))


def test_questions_about_nothing(store: Store) -> None:
    """An analyst's first queries, before anything was sent."""
    found = []
    for number, question in book().items():
        names = set(re.findall(r"\{(\w+):\w+\}", question.sql))
        if has_nan(store, question.sql, {name: PARAMETERS[name] for name in names}):
            found.append(number)
    assert found == []


@pytest.mark.parametrize("days", [1, 30])
@pytest.mark.parametrize("has_retry", [False, True])
def test_panels_of_nothing(store: Store, days: int, *, has_retry: bool) -> None:
    """Of minutes and of hours; also where the only attempt is a retry, so that there is no first one."""
    if has_retry:
        retried = attempt(0, "ep1", 2, "retry")
        rows = finished_rows(record("attempts", 0, retried), retried)
        for table, made in rows.items():
            store.history.insert(table, columns(table, made), table)
        store.history.roll_up(touched(rows["attempts"]))
    now = int(time.time())
    scene = Scene(now - days * 86_400, now + 60, 60, PICKED)
    assert [panel.place for panel in PANELS if has_nan(store, sql(panel.text, scene))] == []
