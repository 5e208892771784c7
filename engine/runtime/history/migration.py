"""Migrations of ClickHouse's tables: numbered SQL files, forward only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from clickhouse_connect.driver.client import Client

from engine.runtime.history.clickhouse import unavailable
from engine.runtime.history.rollups import ROLLUPS
from engine.runtime.history.rows import RETAINED
from engine.runtime.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
_CREATES = re.compile(r"CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) \{database\}\.(\w+)")
_FORMER = re.compile(r"^-- Also: ([0-9a-f]{64}) ", re.MULTILINE)
"""A digest that a migration had before, and why tables made by that one will do."""


class MigrationError(Exception):
    """The migrations cannot be applied; the message says which and what to do."""


def migrate(client: Client, settings: Settings) -> list[str]:
    """Create the database, apply what has not been applied and set the retention; returns what was applied.

    Forward only. Every statement may run twice, so a migration that was cut short is simply run again, and so
    are all of them if a table or view that they make is gone.
    """
    database = settings.clickhouse_database
    if re.fullmatch(r"[A-Za-z_]\w*", database) is None:
        raise MigrationError(f"clickhouse_database={database!r}: use letters, digits and underscores only")
    with unavailable():
        _create_ledger(client, database)
        applied, mends = _applied(client, database), _is_incomplete(client, database)
        done = []
        for path in _files():
            if _is_pending(path, applied) or mends:
                _apply(client, path, settings)
                done.append(path.stem)
        _set_retention(client, settings)
    return done


def check_version(client: Client, settings: Settings) -> None:
    """MigrationError if a newer hooklog has changed the tables."""
    with unavailable():
        _create_ledger(client, settings.clickhouse_database)
        newer = sorted(set(_applied(client, settings.clickhouse_database)) - {path.stem for path in _files()})
    if newer:
        raise MigrationError(f"a newer hooklog applied migration {newer[0]}: upgrade this one first")


def _files() -> list[Path]:
    return sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def _is_incomplete(client: Client, database: str) -> bool:
    made = {name for path in _files() for name in _CREATES.findall(path.read_text(encoding="utf-8"))}
    there = client.query(f"SELECT name FROM system.tables WHERE database = '{database}'").result_rows  # noqa: S608
    return not made <= {str(name) for (name,) in there}


def _create_ledger(client: Client, database: str) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
    client.command(
        f"CREATE TABLE IF NOT EXISTS {database}.migrations (name String COMMENT 'File without its ending',"
        " digest String COMMENT 'SHA-256 of the file', applied_at DateTime('UTC') COMMENT 'When')"
        " ENGINE = ReplacingMergeTree(applied_at) ORDER BY name COMMENT 'Migrations that were applied'",
        use_database=False,
    )


def _applied(client: Client, database: str) -> dict[str, str]:
    rows = client.query(f"SELECT name, digest FROM {database}.migrations FINAL").result_rows  # noqa: S608
    return {str(name): str(digest) for name, digest in rows}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _is_pending(path: Path, applied: Mapping[str, str]) -> bool:
    known = applied.get(path.stem)
    if known is not None and known not in (_digest(path), *_FORMER.findall(path.read_text(encoding="utf-8"))):
        raise MigrationError(f"migration {path.stem} was changed after it was applied; add a new one instead")
    return known is None


def statements(text: str) -> list[str]:
    """Split a migration into its statements: each ends with a semicolon at the end of a line."""
    lines = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in lines.split(";\n") if statement.strip()]


def _apply(client: Client, path: Path, settings: Settings) -> None:
    database = settings.clickhouse_database
    for statement in statements(path.read_text(encoding="utf-8")):
        sql = statement.replace("{database}", database)
        for name in ("retention_days", "rollup_days"):
            sql = sql.replace(f"{{{name}}}", str(getattr(settings, name)))
        client.command(sql, use_database=False)
    client.command(
        f"INSERT INTO {database}.migrations VALUES ('{path.stem}', '{_digest(path)}', now())",  # noqa: S608
        settings={"async_insert": 0},
        use_database=False,
    )


def _set_retention(client: Client, settings: Settings) -> None:
    """Changing a TTL rewrites parts, so only where it differs."""
    times = dict.fromkeys(RETAINED, ("toDateTime(accepted_at)", settings.retention_days))
    times |= {rollup.table: (rollup.time, settings.rollup_days) for rollup in ROLLUPS}
    for table, (time, days) in times.items():
        name = f"{settings.clickhouse_database}.{table}"
        if f"TTL {time} + toIntervalDay({days})" not in str(client.command(f"SHOW CREATE TABLE {name}")):
            client.command(f"ALTER TABLE {name} MODIFY TTL {time} + INTERVAL {days} DAY", use_database=False)
