"""Migrations and the history, on the real engine."""

from __future__ import annotations

import socket
from hashlib import sha256
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from engine.core.accounting import Account
from engine.runtime.history import migration
from engine.runtime.history.clickhouse import RefusedError, UnavailableError, connect
from engine.runtime.history.migration import MIGRATIONS, MigrationError, migrate, statements
from engine.runtime.history.rollups import COLUMNS_OF
from engine.runtime.history.rows import COLUMNS, RETAINED, Rows, columns, finished_rows, routed_rows
from engine.runtime.settings import Settings, load_settings
from tests.integration.history_fixtures import (
    NOW,
    TOPIC,
    Store,
    attempt,
    batch,
    record,
    routing,
)

pytestmark = pytest.mark.integration


def put(store: Store, *all_rows: Rows, token: str = "") -> None:
    """Insert rows; each call its own block unless a token says otherwise."""
    for n, rows in enumerate(all_rows):
        for table, of_table in rows.items():
            store.history.insert(table, columns(table, of_table), token or f"{id(all_rows)}-{n}")


def routed(offset: int, *matched: str, log_offset: int = 0) -> Rows:
    """Rows of a batch of one message."""
    made = batch(routing(offset, *matched))
    return routed_rows(record("routings", log_offset, made), made, TOPIC)


def test_migrate_twice_applies_once(bare: tuple[Client, Settings]) -> None:
    """Everything is applied in order the first time and nothing the second."""
    client, settings = bare
    assert migrate(client, settings) == [path.stem for path in sorted(MIGRATIONS.glob("*.sql"))]
    assert migrate(client, settings) == []


def test_cut_short_migration_is_run_again(bare: tuple[Client, Settings]) -> None:
    """A crash before the ledger was written repeats statements that are there already."""
    client, settings = bare
    migrate(client, settings)
    client.command(f"TRUNCATE TABLE {settings.clickhouse_database}.migrations")
    assert len(migrate(client, settings)) == len(list(MIGRATIONS.glob("*.sql")))


def test_changed_migration_is_refused(
    bare: tuple[Client, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An applied migration that reads otherwise now stops everything, by name."""
    client, settings = bare
    for path in MIGRATIONS.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(migration, "MIGRATIONS", tmp_path)
    migrate(client, settings)
    (tmp_path / "0001_messages.sql").write_text("SELECT 1;\n")
    with pytest.raises(MigrationError, match="0001_messages"):
        migrate(client, settings)


def test_a_migration_may_take_over_from_an_earlier_text(
    bare: tuple[Client, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was applied by a text that the new one names is applied; by any other it is refused."""
    client, settings = bare
    for path in MIGRATIONS.glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(migration, "MIGRATIONS", tmp_path)
    migrate(client, settings)
    file = tmp_path / "0001_messages.sql"
    before = file.read_text()
    file.write_text(f"-- Also: {sha256(before.encode()).hexdigest()} (tables made by it will do)\n{before}")
    assert migrate(client, settings) == []
    file.write_text(f"-- Also: {sha256(b'another').hexdigest()} (tables made by it will do)\n{before}")
    with pytest.raises(MigrationError, match="0001_messages"):
        migrate(client, settings)


def test_retention_follows_the_setting(bare: tuple[Client, Settings]) -> None:
    """The TTL is that of the settings, at first and after a change."""
    client, settings = bare
    for days in (90, 7):
        migrate(client, settings.model_copy(update={"retention_days": days}))
        for table in RETAINED:
            ddl = str(client.command(f"SHOW CREATE TABLE {settings.clickhouse_database}.{table}"))
            assert f"toIntervalDay({days})" in ddl


def test_database_name_is_checked(bare: tuple[Client, Settings]) -> None:
    """A name that is no identifier never gets into SQL."""
    client, settings = bare
    with pytest.raises(MigrationError, match="clickhouse_database"):
        migrate(client, settings.model_copy(update={"clickhouse_database": "a; DROP"}))


def test_every_column_has_a_comment(store: Store) -> None:
    """Analysts find out what a column is from the database itself."""
    for table, names in {**COLUMNS, **COLUMNS_OF}.items():
        described = store.history.rows(
            "SELECT name, comment FROM system.columns"
            " WHERE database = currentDatabase() AND table = {t:String} ORDER BY position",
            {"t": table},
        )
        assert [row["name"] for row in described] == list(names)
        assert all(row["comment"] for row in described)


def test_statements_end_at_semicolons() -> None:
    """Comments go, statements stay whole."""
    text = "-- why; because\nCREATE TABLE a\n(b String COMMENT 'x; y');\n\nSELECT 1;\n"
    assert statements(text) == ["CREATE TABLE a\n(b String COMMENT 'x; y')", "SELECT 1"]


@pytest.mark.parametrize("reverse", [False, True])
def test_latest_attempt_is_the_state(store: Store, reverse: bool) -> None:
    """Pending, a retry, then delivered: the last one shows, whatever came in first."""
    rows = [
        routed(0, "ep"),
        finished_rows(record("attempts", 7, a := attempt(0, "ep", 1, "retry")), a),
        finished_rows(record("attempts", 9, b := attempt(0, "ep", 2, "delivered")), b),
    ]
    put(store, *(reversed(rows) if reverse else rows))
    (state,) = store.history.rows(
        "SELECT status, attempts, next_attempt_at, status_code FROM delivery_status"
    )
    assert state == {"status": "delivered", "attempts": 2, "next_attempt_at": None, "status_code": 200}


@pytest.mark.parametrize("reverse", [False, True])
def test_first_record_of_an_attempt_wins(store: Store, reverse: bool) -> None:
    """A copy that decided otherwise changes neither the attempt nor the delivery."""
    first, copy = attempt(0, "ep", 1, "delivered"), attempt(0, "ep", 1, "failed")
    rows = [
        finished_rows(record("attempts", 3, first), first),
        finished_rows(record("attempts", 4, copy), copy),
    ]
    put(store, *(reversed(rows) if reverse else rows))
    assert store.history.query("SELECT status FROM delivery_status").rows == [("delivered",)]
    assert store.history.query("SELECT decision FROM delivery_attempts").rows == [("delivered",)]


def test_same_token_inserts_once_until_truncated(store: Store) -> None:
    """A repeated insert is a no-op, and `rebuild`'s emptied table takes the same block again."""
    put(store, routed(0, "ep"), token="t1")
    put(store, routed(0, "ep"), token="t1")
    assert store.history.query("SELECT count() FROM messages").rows == [(1,)]
    store.clear()
    put(store, routed(0, "ep"), token="t1")
    assert store.history.query("SELECT count() FROM messages").rows == [(1,)]


def test_timeline(store: Store) -> None:
    """A message, each delivery and each attempt; of another tenant there is nothing."""
    a, b = attempt(5, "ep1", 1, "retry"), attempt(5, "ep1", 2, "delivered")
    put(
        store,
        routed(5, "ep1", "ep2"),
        finished_rows(record("attempts", 0, a), a),
        finished_rows(record("attempts", 1, b), b),
    )
    timeline = store.history.timeline("m5", "acme")
    assert timeline is not None
    assert timeline.message["matched"] == 2
    assert timeline.message["digest"] == "00" * 16
    assert [(d["endpoint_id"], d["status"]) for d in timeline.deliveries] == [
        ("ep1", "delivered"),
        ("ep2", "pending"),
    ]
    assert [(x["attempt"], x["response_body"]) for x in timeline.attempts] == [(1, "busy"), (2, "ok \ufffd")]
    assert store.history.timeline("m5", "other") is None
    assert store.history.timeline("m6") is None


def test_times_keep_their_milliseconds_and_zone(store: Store) -> None:
    """What was microseconds on the log comes back as the same UTC millisecond."""
    put(store, routed(3, "ep"))
    (row,) = store.history.rows("SELECT accepted_at FROM accepted_messages")
    accepted_at = row["accepted_at"]
    assert str(getattr(accepted_at, "tzinfo", None)) == "UTC"
    (stamp,) = store.history.query("SELECT toUnixTimestamp64Milli(accepted_at) FROM messages").rows
    assert stamp == ((NOW + 3_000) // 1000,)


def test_accounting(store: Store) -> None:
    """Every state is counted once; a delivery that has no row is unaccounted, an early one is not."""
    d, f = attempt(0, "ep1", 1, "delivered"), attempt(1, "ep1", 1, "failed")
    early = attempt(9, "ep1", 1, "retry")
    lacking = routed(2, "ep1", "ep2")
    put(
        store,
        routed(0, "ep1", "ep2"),
        routed(1, "ep1"),
        {**lacking, "deliveries": lacking["deliveries"][:1]},
        finished_rows(record("attempts", 0, d), d),
        finished_rows(record("attempts", 1, f), f),
        finished_rows(record("attempts", 2, early), early),
    )
    account = store.history.accounting()
    assert account == Account(matched=6, delivered=1, failed=1, pending=3, skipped=0)
    assert account.unaccounted == 1
    assert store.history.accounting("acme") == account
    assert store.history.accounting("other") == Account()


def test_endpoints(store: Store) -> None:
    """The table of the demo: states, attempts and latencies per endpoint."""
    a, b = attempt(0, "ep1", 1, "retry"), attempt(0, "ep1", 2, "delivered")
    put(
        store,
        routed(0, "ep1", "ep2"),
        finished_rows(record("attempts", 0, a), a),
        finished_rows(record("attempts", 1, b), b),
    )
    first, second = store.history.endpoints()
    assert {k: first[k] for k in ("endpoint_id", "delivered", "pending", "attempts", "p50_ms")} == {
        **{"endpoint_id": "ep1", "delivered": 1, "pending": 0, "attempts": 2, "p50_ms": 1.234}
    }
    assert first["latency_p99_ms"] == 1000.0
    assert (second["endpoint_id"], second["pending"], second["attempts"]) == ("ep2", 1, 0)


def test_refused_query_is_told_apart(store: Store) -> None:
    """A query that ClickHouse does not understand is refused in one line."""
    with pytest.raises(RefusedError, match="nowhere") as caught:
        store.history.query("SELECT * FROM nowhere")
    assert "\n" not in str(caught.value)


def test_unreachable_is_unavailable() -> None:
    """Nobody at the address: an error that says try again, without the password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        settings = load_settings(clickhouse=url, clickhouse_password="hunter2")
        with pytest.raises(UnavailableError) as caught:
            connect(settings)
    assert "hunter2" not in str(caught.value)
