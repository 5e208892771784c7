"""The rollups of a whole history, day by day: what `hooklog rebuild` ends with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from engine.runtime.history.clickhouse import History, execute
from engine.runtime.history.rollups import HOURS, MINUTES, SETTINGS, Rollup, make

T = TypeVar("T")
Tell = Callable[[int, int], None]
"""Told how many days are done, and of how many."""
_TIMES = {"attempts": "accepted_at", "health_1m": "accepted_minute"}
_BOUNDED = {
    **SETTINGS,
    # A day's rows have their quantiles with them: small blocks keep few of them in memory. The store's
    # peak for 2.5 million attempts of 8 days is 860 MB with these, else 1,120, and it is no slower.
    "max_block_size": 8_192,
    "max_insert_block_size": 65_536,
    "min_insert_block_size_rows": 65_536,
    "min_insert_block_size_bytes": 32 << 20,
}
_OLDEST = "SELECT toUnixTimestamp(min(accepted_at)) FROM attempts"


class Persistently(Protocol):
    """Calls until ClickHouse is there."""

    def __call__(self, call: Callable[[], T]) -> T:
        """Return what the call does."""


def add_up(store: History, live: str, days: int, persistently: Persistently, tell: Tell) -> None:
    """Make the rollups from the attempts in `store`; those of attempts too old for that from `live`."""
    now = persistently(store.clock) // 1_000_000_000
    oldest = int(str(persistently(partial(store.query, _OLDEST)).rows[0][0]))
    since = max(now - days * 86_400, oldest // 3_600 * 3_600)
    whole = {MINUTES: -(-since // 60) * 60, HOURS: since // 3_600 * 3_600}
    for rollup, start in whole.items():
        persistently(partial(_keep_older, store, live, rollup, start))
        time = _TIMES[rollup.source]
        listed = f"SELECT DISTINCT toString(toDate({time})) FROM {rollup.source} ORDER BY 1"  # noqa: S608
        named = persistently(partial(store.query, listed)).rows
        for done, (day,) in enumerate(named):
            tell(done, len(named))
            where = f"toDate({time}) = '{day}' AND {time} >= toDateTime({start}, 'UTC')"
            persistently(partial(make_where, store, rollup, where))


def make_where(store: History, rollup: Rollup, where: str) -> None:
    """Make the rows of all units that a condition on the rollup's source names."""
    execute(store.client, make(rollup, where), {"at": store.clock()}, _BOUNDED)


def _keep_older(store: History, live: str, rollup: Rollup, start: int) -> None:
    names, older = ", ".join(rollup.columns), f"{rollup.accepted} < toDateTime({start}, 'UTC')"
    sql = (
        f"INSERT INTO {rollup.table} ({names}) SELECT {names} FROM {live}.{rollup.table} FINAL WHERE {older}"  # noqa: S608
    )
    execute(store.client, sql, settings=SETTINGS)
