"""What the API reads of an endpoint's health is the same however far back it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import clickhouse_connect
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.model import AttemptFinished, Decision
from engine.runtime.history.clickhouse import History
from engine.runtime.history.endpoint_health import Told, told_of
from engine.runtime.history.rollups import touched
from engine.runtime.history.rows import columns, finished_rows
from tests.integration.history_fixtures import NOW, SECOND, attempt, record
from tests.integration.history_fixtures import Store as HistoryStore

pytestmark = pytest.mark.integration

HOUR = 3_600 * SECOND
_Minutes = st.one_of(st.integers(0, 50), st.integers(0, 25 * 60), st.integers(0, 29 * 24 * 60))
_Ago = _Minutes.map(lambda minutes: minutes * 60 * SECOND + 7_000)


@pytest.fixture
def history(store: HistoryStore, chdb: str) -> Iterator[History]:
    """A history without rows."""
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware", autogenerate_session_id=False)
    client.database = store.client.database
    made = History(lambda: client)
    yield made
    made.close()


@st.composite
def attempts(draw: st.DrawFn) -> list[AttemptFinished]:
    """Attempts of the last 29 days, long after acceptance or at once, some of them test sends."""
    made = []
    for offset in range(draw(st.integers(0, 8))):
        ago, waited = draw(_Ago), draw(st.sampled_from((0, 1, 3, 40))) * HOUR
        is_success = draw(st.booleans())
        one = attempt(offset, "ep", 1, "delivered" if is_success else "retry")
        one = replace(one, accepted_at=NOW - ago - waited, attempted_at=NOW - ago)
        one = replace(one, trigger=draw(st.sampled_from(("scheduled", "test"))))
        made.append(one if is_success else replace(one, error_class=draw(st.sampled_from(("dns", "tls")))))
    return made


def expected(made: list[AttemptFinished], hours: int) -> tuple[object, ...]:
    """The answer, by counting."""
    counted = [each for each in made if each.trigger != "test" and each.accepted_at >= NOW - 30 * 24 * HOUR]
    inside = [each for each in counted if each.attempted_at >= NOW - hours * HOUR]
    failed = [each.error_class for each in inside if each.outcome == "failure"]
    return (
        len(inside),
        len(inside) - len(failed),
        _last(counted, "success"),
        _last(counted, "failure"),
        {name: failed.count(name) for name in failed},
    )


def _last(made: list[AttemptFinished], outcome: str) -> datetime | None:
    last = max((each.attempted_at for each in made if each.outcome == outcome), default=None)
    return None if last is None else datetime.fromtimestamp(last // 1000 / 1000, UTC)


def answer(told: Told) -> tuple[object, ...]:
    """The same of what was told."""
    errors = {str(row["error_class"]): int(str(row["count"])) for row in told.errors}
    return told.attempts, told.successes, told.last_success_at, told.last_failure_at, errors


@given(made=attempts(), hours=st.sampled_from((1, 24, 24, 720)), are_rolled_up=st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_answer_is_that_of_all_attempts(
    store: HistoryStore, history: History, made: list[AttemptFinished], hours: int, *, are_rolled_up: bool
) -> None:
    """Late retries, test sends after the last real attempt, a rollup that was never made."""
    for table in ("attempts", "deliveries", "health_1m", "health_1h"):
        store.client.command(f"TRUNCATE TABLE {table}")
    rows = [finished_rows(record("attempts", n, each), each)["attempts"][0] for n, each in enumerate(made)]
    if rows:
        history.insert("attempts", columns("attempts", rows), "")
    if are_rolled_up:
        history.roll_up(touched(rows))
    told = told_of(
        history, made[0].tenant if made else "acme", "ep", (NOW - hours * HOUR) // 1000, NOW // 1000
    )
    assert answer(told) == expected(made, hours)


def test_the_last_one_is_found_though_its_message_is_older_than_what_is_read(
    store: HistoryStore, history: History
) -> None:
    """Two failed in one hour before the window; the later one's message is older than all of the window's.

    That attempt was made again, later, by a dispatcher that did not know: the first record counts.
    """
    hour = NOW // HOUR * HOUR - 30 * HOUR
    times: tuple[tuple[int, int, Decision], ...] = (  # accepted, attempted, what came of it
        (hour - 2 * HOUR, NOW - HOUR, "delivered"),
        (hour, hour + SECOND, "retry"),
        (hour - 5 * HOUR, hour + 2 * SECOND, "retry"),
    )
    made = [
        replace(attempt(n, "ep", 1, decision), accepted_at=accepted, attempted_at=attempted)
        for n, (accepted, attempted, decision) in enumerate(times)
    ]
    rows = [finished_rows(record("attempts", n, each), each)["attempts"][0] for n, each in enumerate(made)]
    copied = replace(made[2], attempted_at=hour + 9 * SECOND)
    store.client.command("SYSTEM STOP MERGES attempts")
    history.insert("attempts", columns("attempts", rows), "")
    copies = finished_rows(record("attempts", 7, copied), copied)["attempts"]
    history.insert("attempts", columns("attempts", copies), "")
    history.roll_up(touched(rows))
    told = told_of(history, "acme", "ep", (NOW - 24 * HOUR) // 1000, NOW // 1000)
    assert answer(told) == expected(made, 24)
