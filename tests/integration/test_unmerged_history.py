"""Questions that do without FINAL answer as those with it do: rows came late, twice and out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random

import pytest

from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import AttemptFinished, Skipped
from engine.runtime.history import overview
from engine.runtime.history.clickhouse import Row as Shown
from engine.runtime.history.endpoint_attempts import recent_attempts, steps
from engine.runtime.history.endpoint_health import told_of
from engine.runtime.history.listings import DELIVERIES, Asked
from engine.runtime.history.made_since import made_since, what_of
from engine.runtime.history.rollups import touched
from engine.runtime.history.rows import Row, columns, finished_rows, routed_rows
from tests.integration.history_fixtures import (
    NOW,
    SECOND,
    TOPIC,
    Store,
    attempt,
    batch,
    connected,
    filled,
    record,
    routing,
)

pytestmark = pytest.mark.integration

HOUR = 3_600 * SECOND
DAY = 24 * HOUR
MESSAGES = 60
INSERTS = 9
ENDPOINTS = {"ep1": "acme", "ep2": "acme", "ep3": "other"}
Rows = dict[str, list[Row]]


def made(random: Random) -> Rows:
    """Rows of everything that happened, in no order: most are pending at first, and some still are."""
    found: Rows = {"messages": [], "deliveries": [], "attempts": []}
    for offset in range(MESSAGES):
        endpoint = random.choice(list(ENDPOINTS))
        days = random.choice((0, 0, 1, 1, 2, 5, 9, 20, 28))
        accepted_at = NOW - days * DAY - random.randrange(1, 20) * HOUR - random.randrange(HOUR)
        skipped = random.random() < 0.1
        routed = replace(
            routing(offset, *(() if skipped else (endpoint,))),
            tenant=ENDPOINTS[endpoint],
            accepted_at=accepted_at,
            event_type=f"type.{offset % 3}",
            skipped=(Skipped(endpoint, "disabled"),) if skipped else (),
        )
        _add(found, routed_rows(record("routings", offset, batch(routed)), batch(routed), TOPIC))
        for finished in [] if skipped else tries(random, offset, endpoint, accepted_at):
            _add(found, finished_rows(record("attempts", len(found["attempts"]), finished), finished))
    return found


def tries(random: Random, offset: int, endpoint: str, accepted_at: int) -> list[AttemptFinished]:
    """Attempts of one delivery, the last hours later, across a day's end; some have a copy that differs."""
    several: list[AttemptFinished] = []
    at, is_test = accepted_at, random.random() < 0.15
    for number in range(1, random.randrange(5)):
        at += random.choice((SECOND, HOUR // 2, 15 * HOUR))
        decision = random.choice(("retry", "delivered", "failed")) if number < 4 else "failed"
        one = replace(
            attempt(offset, endpoint, number, "retry"),
            tenant=ENDPOINTS[endpoint],
            accepted_at=accepted_at,
            attempted_at=min(at, NOW - SECOND - offset * 10_000),
            event_type=f"type.{offset % 3}",
            duration_us=random.randrange(1_000, 900_000),
            trigger="test" if is_test else "scheduled",
            error_class=random.choice(("dns", "tls")),
            retry_at=NOW + random.choice((-HOUR, HOUR)),
        )
        ended = replace(one, decision="failed", reason=one.error_class, retry_at=0)
        worked = replace(
            one, decision="delivered", outcome="success", status_code=200, error_class="", error=""
        )
        worked = replace(worked, retry_at=0)
        several.append({"retry": one, "delivered": worked, "failed": ended}[decision])
        if random.random() < 0.3:  # another dispatcher made it again, and it went otherwise
            other = random.choice((one, worked, ended))
            several.append(replace(other, attempted_at=other.attempted_at + 7_000))
        if decision != "retry":
            break
    return several


def _add(found: Rows, more: Mapping[str, list[Row]]) -> None:
    for table, rows in more.items():
        found[table] += rows


@pytest.fixture(scope="module", params=range(4))
def told(request: pytest.FixtureRequest, chdb: str, template: Sequence[str]) -> Iterator[Store]:
    """A history whose parts are not merged, which the tests only read; every row came once or twice."""
    with connected(chdb) as bare:
        yield tell(filled(bare, template), Random(request.param))


def tell(store: Store, random: Random) -> Store:
    """Insert it."""
    for table, rows in made(random).items():
        store.client.command(f"SYSTEM STOP MERGES {store.settings.clickhouse_database}.{table}")
        repeated = rows + random.sample(rows, len(rows) // 3)
        random.shuffle(repeated)
        for n in range(INSERTS):
            store.history.insert(table, columns(table, repeated[n::INSERTS]), f"{table}-{n}")
        if table == "attempts":
            roll_up_twice(store, rows)
    return store


def roll_up_twice(store: Store, rows: list[Row]) -> None:
    """As after a restart, or a late record: the rows of before are still there."""
    for table in ("health_1m", "health_1h"):
        store.client.command(f"SYSTEM STOP MERGES {store.settings.clickhouse_database}.{table}")
    for _ in range(2):
        store.history.roll_up(touched(rows))


FILTERS: list[dict[str, str]] = [
    *({}, {"tenant": "acme"}, {"endpoint_id": "ep1"}, {"event_type": "type.1"}, {"tenant": "nobody"}),
    *({"status": status} for status in ("pending", "failed", "delivered", "skipped")),
    *({"status": "pending", "endpoint_id": id} for id in ENDPOINTS),
    {"status": "delivered", "tenant": "acme", "event_type": "type.2"},
]


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_pages_of_deliveries(told: Store, limit: int) -> None:
    """By every filter, page after page."""
    unmerged = told.history.query("SELECT count() > uniqExact(delivery_id) FROM deliveries").rows
    assert unmerged == [(1,)]
    for values in FILTERS:
        where = " AND ".join([f"{name} = {{{name}:String}}" for name in values] or ["1"])
        whole = told.history.rows(
            f"SELECT {', '.join(DELIVERIES.columns)} FROM deliveries FINAL WHERE {where}"
            " ORDER BY accepted_at DESC, delivery_id DESC",
            values,
        )
        asked = Asked(values, until=NOW // 1000 + DAY // 1000)
        after, found = None, list[Shown]()
        while page := told.history.page(DELIVERIES, asked, after, limit):
            found += page
            after = (_ms(page[-1]["accepted_at"]), str(page[-1]["delivery_id"]))
        assert found == whole


def _ms(at: object) -> int:
    assert isinstance(at, datetime)
    return round(at.timestamp() * 1_000)


def test_what_waits(told: Store) -> None:
    """Of all, and of a tenant."""
    for tenant in ("", "acme", "nobody"):
        ((pending, overdue),) = told.history.query(
            "SELECT count(), countIf(next_attempt_at < now64(3, 'UTC') - 60) FROM deliveries FINAL"
            " WHERE status = 'pending' AND ({tenant:String} = '' OR tenant = {tenant:String})",
            {"tenant": tenant},
        ).rows
        found = asyncio.run(overview.pending(told.history, tenant, NOW))
        assert (found.count, found.overdue) == (pending, overdue)
        assert tenant == "nobody" or 0 < found.overdue < found.count


def test_an_endpoints_health(told: Store) -> None:
    """Attempts by outcome and class, their durations, the last ones, what waits."""
    for endpoint, tenant in ENDPOINTS.items():
        for hours in (1, 24, 24 * 7, 24 * 30):
            since = NOW // 1000 - hours * HOUR // 1000
            found = told_of(told.history, tenant, endpoint, since, NOW // 1000)
            asked = {"endpoint": endpoint, "since": since}
            (expected,) = told.history.rows(_HEALTH, asked)
            shown = {name: getattr(found, name) for name in expected if hasattr(found, name)}
            (waiting,) = told.history.rows(_WAITING, asked)
            assert shown | {"pending": found.pending, "oldest": found.oldest} == expected | waiting
            assert found.attempts == 0 or list(found.durations_ms) == _durations(told, asked)
            named = ("error_class", "count", "last_at", "status_code")
            assert [{n: row[n] for n in named} for row in found.errors] == told.history.rows(_ERRORS, asked)


_OF = "endpoint_id = {endpoint:String} AND trigger != 'test'"
_INSIDE = "attempted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
_HEALTH = f"""SELECT countIf({_INSIDE}) AS attempts, countIf({_INSIDE} AND outcome = 'success') AS successes,
maxOrNullIf(attempted_at, outcome = 'success') AS last_success_at,
maxOrNullIf(attempted_at, outcome = 'failure') AS last_failure_at FROM attempts FINAL WHERE {_OF}"""
_ERRORS = f"""SELECT error_class, count() AS count, max(attempted_at) AS last_at,
argMax(status_code, attempted_at) AS status_code
FROM attempts FINAL WHERE {_OF} AND {_INSIDE} AND outcome = 'failure' GROUP BY error_class
ORDER BY count DESC, error_class"""
_DURATIONS = f"SELECT quantiles(0.5, 0.95, 0.99)(duration_ms) FROM attempts FINAL WHERE {_OF} AND {_INSIDE}"
_WAITING = """SELECT count() AS pending, minOrNull(accepted_at) AS oldest FROM deliveries FINAL
WHERE endpoint_id = {endpoint:String} AND status = 'pending' AND {since:Int64} > 0"""


def _durations(told: Store, asked: Mapping[str, object]) -> object:
    return told.history.query(_DURATIONS, asked).rows[0][0]


def test_an_endpoints_newest_attempts_and_chart(told: Store) -> None:
    """The same attempts as the view has; steps of hours add up to those of minutes."""
    for id, tenant in ENDPOINTS.items():
        endpoint = Endpoint(id, tenant, EndpointSettings("https://a.example.com/"))
        found = recent_attempts(told.history, endpoint, NOW, 500)
        view = "SELECT delivery_id, attempt, outcome, attempted_at, trigger FROM attempts FINAL"
        where = f" WHERE endpoint_id = '{id}' ORDER BY attempted_at DESC, attempt DESC"
        names = ("delivery_id", "attempt", "outcome", "attempted_at", "trigger")
        newest = [tuple(row[n] for n in names) for row in found]
        assert newest == told.history.query(view + where).rows[: len(newest)]
        assert newest
        first = NOW // DAY * 86_400 - 29 * 86_400
        long = steps(told.history, endpoint, first, 7_200, 360)
        short = steps(told.history, endpoint, first, 1_800, 1_440)
        assert sum(step.successes + step.failures for step in long) > 0
        assert [(step.successes, step.failures) for step in long] == [
            (sum(s.successes for s in short[n : n + 4]), sum(s.failures for s in short[n : n + 4]))
            for n in range(0, 1_440, 4)
        ]


def test_what_was_made_since(told: Store) -> None:
    """Deliveries of some messages that are delivered or wait, the best of each."""
    of = "tenant = 'acme' AND topic_offset % 2 = 0"
    some = told.history.rows(f"SELECT * FROM deliveries FINAL WHERE {of}")
    expected = told.history.query(
        "SELECT endpoint_id, topic_partition, topic_offset, min(status) FROM deliveries FINAL"
        f" WHERE {of} AND status IN ('delivered', 'pending') GROUP BY ALL"
    ).rows
    found = made_since(told.history, some)
    asked = {what_of(row) for row in some}
    assert {what: best for what, best in found.items() if what in asked} == {
        (str(endpoint), (partition, offset)): best for endpoint, partition, offset, best in expected
    }
    assert set(found.values()) == {"delivered", "pending"}
