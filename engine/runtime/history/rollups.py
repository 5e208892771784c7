"""Rollups: attempts by minute and by hour, made anew from `attempts` wherever one was written.

What is made anew at a time is a unit: every attempt of one endpoint's messages accepted in one minute. Copies
of an attempt's record may differ in anything but that, so a unit holds all rows that compete for a place; and
it is where `attempts` is ordered by, so a unit costs what it holds, not what its day does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.runtime.history.rows import COLUMNS, Columns, Row

Unit = tuple[str, str, int]
"""Tenant, endpoint, minute of acceptance (seconds since 1970 UTC)."""

TOUCHED = "touched"
TOUCHED_COLUMNS = ("run", "tenant", "endpoint_id", "accepted_minute")
CLOCK = "SELECT toUInt64(toUnixTimestamp64Nano(now64(9)))"
"""Asked before reading: who has the higher one has seen all that the lower one was made of."""
SETTINGS: Mapping[str, object] = {
    "do_not_merge_across_partitions_select_final": 1,  # a key holds what its partition is made of
    "optimize_aggregation_in_order": 1,  # else a day of many endpoints is held in memory
    "max_partitions_per_insert_block": 0,
    "async_insert": 0,
}
_MEASURES = ("attempts", "bytes", "duration_us", "durations", "gone", "computed_at")
_QUANTILES = "(0.5, 0.95, 0.99)"
_TENANT, _ENDPOINT, _ACCEPTED = (
    COLUMNS["attempts"].index(n) for n in ("tenant", "endpoint_id", "accepted_at")
)
_MINUTE_MS = 60_000
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of attempts by endpoint and span of time, and SQL of what it is made of."""

    table: str
    time: str
    accepted: str
    source: str
    unit: str
    """Of a row of the source: when its unit was accepted."""
    of_touched: str
    """The same of a row of `touched`."""
    select: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns, in their order."""
        return ("tenant", "endpoint_id", self.time, "outcome", "error_class", self.accepted, *_MEASURES)


MINUTES = Rollup(
    table="health_1m",
    time="minute",
    accepted="accepted_minute",
    source="attempts",
    unit="toStartOfMinute(accepted_at)",
    of_touched="accepted_minute",
    select="toStartOfMinute(attempted_at) AS minute, outcome, error_class,"
    " toStartOfMinute(accepted_at) AS unit, count(), sum(request_bytes),"
    f" sum(toUInt64(round(duration_ms * 1000))), quantilesBFloat16State{_QUANTILES}(duration_ms)",
)
HOURS = Rollup(
    table="health_1h",
    time="hour",
    accepted="accepted_hour",
    source="health_1m",
    unit="toStartOfHour(accepted_minute)",
    of_touched="toStartOfHour(accepted_minute)",
    select="toStartOfHour(minute) AS hour, outcome, error_class,"
    " toStartOfHour(accepted_minute) AS unit, sum(attempts), sum(bytes),"
    f" sum(duration_us), quantilesBFloat16MergeState{_QUANTILES}(durations)",
)
ROLLUPS = (MINUTES, HOURS)
"""In the order in which they are made: hours are made of minutes."""
COLUMNS_OF: Mapping[str, tuple[str, ...]] = {
    **{rollup.table: rollup.columns for rollup in ROLLUPS},
    TOUCHED: TOUCHED_COLUMNS,
}


def touched(attempts: Iterable[Row]) -> set[Unit]:
    """Units that rows of `attempts` belong to."""
    return {
        (str(row[_TENANT]), str(row[_ENDPOINT]), int(str(row[_ACCEPTED])) // _MINUTE_MS * 60)
        for row in attempts
    }


def kept(units: Iterable[Unit], now: int, days: int) -> list[Unit]:
    """Units whose attempts are all still there at `now` (microseconds); what is older stays as it was."""
    oldest = now // 1_000_000 - days * _DAY_S
    return sorted(unit for unit in units if unit[2] >= oldest)


def touched_columns(run: int, units: Iterable[Unit]) -> Columns:
    """Units as rows of `touched`."""
    rows = ((run, *unit) for unit in units)
    return dict(zip(TOUCHED_COLUMNS, zip(*rows, strict=True), strict=True))


def make_touched(rollup: Rollup) -> tuple[str, str]:
    """SQL that makes anew what `touched` says of {run:UInt64}, {at:UInt64} being CLOCK's answer.

    First what is there, then what is there no more: rows that the first statement did not replace.
    """
    units = f"SELECT tenant, endpoint_id, {rollup.of_touched} FROM {TOUCHED} WHERE run = {{run:UInt64}}"  # noqa: S608
    keys = ", ".join(rollup.columns[:6])
    vanished = (
        f"INSERT INTO {rollup.table} ({', '.join(rollup.columns)})"  # noqa: S608
        f" SELECT {keys}, 0, 0, 0, durations, 1, {{at:UInt64}} FROM {rollup.table} FINAL"
        f" WHERE (tenant, endpoint_id, {rollup.accepted}) IN ({units}) AND computed_at < {{at:UInt64}}"
    )
    return make(rollup, f"(tenant, endpoint_id, {rollup.unit}) IN ({units})"), vanished


def make(rollup: Rollup, where: str) -> str:
    """SQL that makes all rows of the units that a condition on the source names; {at:UInt64} as above."""
    return (
        f"INSERT INTO {rollup.table} ({', '.join(rollup.columns)})"  # noqa: S608
        f" SELECT tenant, endpoint_id, {rollup.select}, 0, {{at:UInt64}}"
        f" FROM {rollup.source} FINAL WHERE {where}"
        f" GROUP BY tenant, endpoint_id, unit, {rollup.time}, outcome, error_class"
    )
