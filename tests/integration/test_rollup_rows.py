"""Rows of rollups: which hide which, and how long they are kept."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from engine.core.routing import delivery_id
from engine.runtime.history.migration import migrate
from engine.runtime.history.rollups import ROLLUPS, kept
from engine.runtime.settings import Settings
from tests.integration.history_fixtures import (
    SECOND,
    TOPIC,
    Store,
    record,
)
from tests.integration.rollup_fold import (
    DAY,
    SOME,
    Made,
    check,
    finished,
    log_of,
    project,
    write,
)

pytestmark = pytest.mark.integration


def test_a_minute_that_loses_its_rows_vanishes(store: Store) -> None:
    """A copy that came first had its minute and hour; when the first record comes they are no more."""
    first, copy = (finished(Made(0, "ep1", 1, 0, at)) for at in (30, 4_000))
    for offset, each in ((1, copy), (0, first)):
        store.history.roll_up(write(store, [record("attempts", offset, each)]).touched())
        check(store, [each])
    assert store.history.query("SELECT sum(attempts), max(gone) FROM health_1m").rows == [(2, 1)]


def test_an_older_result_never_hides_a_newer_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two projectors the one whose clock was read later has seen more: its rows stay."""
    records = [record("attempts", n, each) for n, each in enumerate(SOME)]
    early = store.history.clock()
    store.history.roll_up(write(store, records).touched())
    store.client.command("CREATE TABLE spare AS attempts")
    store.client.command("EXCHANGE TABLES attempts AND spare")  # what the slower one saw: less
    with monkeypatch.context() as slow:
        slow.setattr(type(store.history), "clock", lambda _: early)
        store.history.roll_up(write(store, records[:5]).touched())
    check(store, SOME)


def test_units_of_attempts_that_are_gone_by_age_stay() -> None:
    """What was accepted before the retention is not made anew from the few rows that are left of it."""
    now = 100 * DAY * SECOND
    units = [("t", "e", 10 * DAY - 60), ("t", "e", 10 * DAY), ("t", "e", 99 * DAY)]
    assert kept(units, now, 90) == units[1:]


def test_rollups_are_kept_for_longer(bare: tuple[Client, Settings]) -> None:
    """By their own setting, at first and after a change."""
    client, settings_ = bare
    for days in (400, 30):
        migrate(client, settings_.model_copy(update={"rollup_days": days}))
        for rollup in ROLLUPS:
            ddl = str(client.command(f"SHOW CREATE TABLE {settings_.clickhouse_database}.{rollup.table}"))
            assert f"TTL {rollup.time} + toIntervalDay({days})" in ddl


def test_days_drop_by_age(store: Store) -> None:
    """After a shorter retention is migrated to, what is older is gone and the rest is not."""
    old = [finished(Made(n, "ep1", 1, -20 * DAY + n, -20 * DAY + n)) for n in range(3)]
    project(log_of([*SOME, *old]), store)
    migrate(store.client, store.settings.model_copy(update={"retention_days": 7, "rollup_days": 10}))
    for table in ("attempts", "health_1m", "health_1h"):
        store.client.command(f"OPTIMIZE TABLE {table} FINAL")
    check(store, SOME)
    migrate(store.client, store.settings)


def test_delivery_ids_are_those_of_the_fixtures() -> None:
    """The fold tells deliveries apart as the product does."""
    assert SOME[0].delivery_id == delivery_id(TOPIC, 0, 0, "ep0")
