"""Rebuild: the same tables from the log alone, at any time, and never fewer than there were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.ports import Output
from engine.runtime.history import projection
from engine.runtime.history.migration import migrate
from engine.runtime.history.rebuild import Options, RebuildError
from engine.runtime.history.rows import COLUMNS
from tests.integration.history_fixtures import Store, attempt, batch, routing
from tests.integration.lying_store import (
    contents,
    front,
    process,
    served,
)
from tests.integration.rebuild_scene import (
    DAMAGE,
    ENDS,
    TrimmedLog,
    definitions,
    fill,
    leftovers,
    log,
    projected,
    put,
    run,
)

__all__ = ["front", "log", "process", "served"]
pytestmark = pytest.mark.integration

# -- the same tables --------------------------------------------------------------------


def test_the_same_tables_twice(log: TrimmedLog, served: Store) -> None:
    """Rows and definitions are those that the projector made, and a second time too; nothing is left over."""
    before, made = contents(served), definitions(served)
    for _ in range(2):
        report = run(log, served)
        assert contents(served) == before
        assert definitions(served) == made
        assert {table: count.after for table, count in report.tables.items()} == {
            table: len(before[table]) for table in COLUMNS
        }
    assert report.records == sum(len(log.records((topic, 0))) for topic in projection.TOPICS)
    assert leftovers(served) == []


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_mended(log: TrimmedLog, served: Store, damage: str) -> None:
    """Whatever was done to the tables, afterwards they say what the log says, and no more."""
    before, made = contents(served), definitions(served)
    served.client.command(damage)
    run(log, served)
    assert contents(served) == before
    assert definitions(served) == made


@pytest.mark.parametrize("rows", [1, 7, 1_000_000])
def test_any_batch_size(log: TrimmedLog, served: Store, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """However the log is cut into inserts, by rows or by bytes, the tables are the same."""
    before = contents(served)
    served.clear()
    monkeypatch.setattr(projection, "BATCH_ROWS", rows)
    monkeypatch.setattr(projection, "BATCH_BYTES", rows * 5_000)
    run(log, served)
    assert contents(served) == before


def test_undecodable_records_are_passed_over(log: TrimmedLog, served: Store) -> None:
    """The projector has put them into `invalid`; they are counted, and written there no second time."""
    before = contents(served)
    log.append(Output("attempts", 0, None, b"junk"))
    report = run(log, served)
    assert report.undecodable == 1
    assert contents(served) == before
    assert log.records(("invalid", 0)) == []


# -- what is older than the log ---------------------------------------------------------


@pytest.mark.parametrize("trimmed", [{"attempts": 50}, {"routings": 1}, {"attempts": 70, "routings": 2}])
def test_what_left_the_log_is_kept(log: TrimmedLog, served: Store, trimmed: dict[str, int]) -> None:
    """ClickHouse keeps history for longer: rows of records that are gone stay as they were."""
    fill(log, 60, 20)
    fill(log, 80, 20)
    projected(log, served)
    before = contents(served)
    log.starts = {(topic, 0): start for topic, start in trimmed.items()}
    report = run(log, served)
    assert contents(served) == before
    assert sum(count.carried for count in report.tables.values()) > 0


def test_rollups_outlive_their_attempts(served: Store) -> None:
    """Figures of attempts that are gone by age stay; what is still there is added up anew."""
    week_us, log = 7 * 86_400 * 1_000_000, TrimmedLog()
    old = [
        replace(
            each, accepted_at=each.accepted_at - 3 * week_us, attempted_at=each.attempted_at - 3 * week_us
        )
        for each in (attempt(n, "ep", 1, ENDS[n % 3]) for n in range(20))
    ]
    put(log, "attempts", *old)
    projected(log, served)
    fill(log, 100, 20)
    projected(log, served)
    shorter = replace(served, settings=served.settings.model_copy(update={"retention_days": 7}))
    migrate(served.client, shorter.settings)
    for table in ("attempts", "deliveries"):
        served.client.command(f"OPTIMIZE TABLE {table} FINAL")
    before = contents(served)
    assert not [row for row in before["attempts"] if "ep" in row]
    assert [row for row in before["health_1m"] if "ep" in row]
    log.starts = {("attempts", 0): len(old)}
    served.client.command(
        "ALTER TABLE health_1h DELETE WHERE endpoint_id = 'ep1' SETTINGS mutations_sync = 1"
    )
    run(log, shorter)
    assert contents(served) == before


def test_what_is_on_the_log_outranks_what_is_kept(served: Store) -> None:
    """A delivery whose first attempt has left the log and whose second has not shows the second."""
    log = TrimmedLog()
    put(log, "routings", batch(routing(0, "ep")))
    put(log, "attempts", attempt(0, "ep", 1, "retry"), attempt(0, "ep", 2, "delivered"))
    projected(log, served)
    log.starts = {("routings", 0): 1, ("attempts", 0): 1}
    run(log, served)
    (state,) = served.history.rows("SELECT status, attempts FROM delivery_status")
    assert state == {"status": "delivered", "attempts": 2}
    assert served.history.query("SELECT count() FROM delivery_attempts").rows == [(2,)]


def test_another_log_is_refused(log: TrimmedLog, served: Store) -> None:
    """A log that ends before what ClickHouse has is not the one it came from; only asked for is it taken."""
    before = contents(served)
    with pytest.raises(RebuildError, match=r"up to offset \d+, and this log ends at 0: are HOOKLOG_KAFKA"):
        run(TrimmedLog(), served)
    assert contents(served) == before
    run(TrimmedLog(), served, Options(discard=True))
    assert not any(contents(served).values())
