"""The audit: who did what, and the accounting with its last check."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.api.dashboard.change_words import DETAILS_MAX, said_of
from engine.core.change import FactBase
from engine.core.replay import ReplayCancelled
from engine.runtime.clock import SystemClock
from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns
from engine.runtime.history.trail import change_rows
from engine.runtime.memory import MemoryLog
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, Api, dev_context, make_context, running
from tests.integration.history_fixtures import NOW, SECOND

pytestmark = pytest.mark.integration
_CHECKED = "hooklog_accounting_checked_timestamp_seconds"


def project(api: Api, history: History) -> None:
    """Bring the history up to date with the log's changes."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    for n in range(log.partitions("changes")):
        for record in log.records(("changes", n)):
            fact = api.context.codec.decode(record.value)
            assert isinstance(fact, FactBase)
            _insert(history, change_rows(record, fact), f"changes-{n}-{record.offset}")


def _insert(history: History, tables: dict[str, list[tuple[object, ...]]], token: str) -> None:
    for table, rows in tables.items():
        history.insert(table, columns(table, rows), token)


@contextmanager
def exporting(text: str) -> Iterator[str]:
    """Serves what a program exports; yields the URL."""

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Say it."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exported(checked: float, **problems: int) -> str:
    """What the accounting group says, beside what else a program does."""
    counts = [f'hooklog_unaccounted{{problem="{kind}"}} {count}.0' for kind, count in problems.items()]
    families = {
        "python_info": ["python_info 1"],
        "hooklog_unaccounted": counts,
        _CHECKED: [f"{_CHECKED} {checked}"],
    }
    lines = [[f"# HELP {name} x", f"# TYPE {name} gauge", *said] for name, said in families.items()]
    return "".join(f"{line}\n" for each in lines for line in each)


@contextmanager
def audited(history: History, metrics_of: str) -> Iterator[Visitor]:
    """The admin of an API that is told where the accounting group is."""
    settings = make_context().settings.model_copy(update={"metrics_of": (metrics_of,)})
    with running(make_context(settings), history=history) as api:
        yield Visitor(api, KEY)


def test_who_did_what_is_listed(world: World, admin: Visitor) -> None:
    """Newest first, by name, with what it was done to, and no secret."""
    key = world.api.new_key("manage", tenant="acme")
    world.api.ask_as(key, "POST", f"/v1/endpoints/{world.endpoints['acme']}/disable")
    project(world.api, world.history)
    page = admin.get("audit")
    text = shown(page)
    assert "Endpoint disabled" in text
    assert "Key created" in text
    assert f"key:{key.split('_')[1]}" in text
    assert f'href="/dashboard/endpoints/{world.endpoints["acme"]}"' in page.text
    assert text.index("Endpoint disabled") < text.index("Key created") < text.index("Endpoint created")
    assert key not in page.text
    assert "whsec_" not in page.text


def test_changes_are_found_by_each_filter(world: World, admin: Visitor) -> None:
    """Actor, kind, id, change, time, tenant."""
    world.api.ask("POST", f"/v1/endpoints/{world.endpoints['acme']}/disable")
    key = world.api.new_key("manage", tenant="acme")
    world.api.ask_as(key, "POST", f"/v1/endpoints/{world.endpoints['acme']}/enable")
    project(world.api, world.history)
    for query, count in {
        "?subject=endpoint": 4,
        "?subject=endpoint&tenant=acme": 3,
        f"?actor=key:{key.split('_')[1]}": 1,
        f"?subject_id={world.endpoints['other']}": 1,
        "?subject=endpoint&change=disabled": 1,
        "?subject=endpoint&within=1h": 4,
        "?until=2020-01-01T00:00": 0,
        "?actor=nobody&change=x&subject_id=y&subject=z": 0,
    }.items():
        rows = re.findall(r"<tr>\s*<td", admin.get(f"audit{query}").text)
        assert len(rows) == count, query


def test_pages_of_changes_follow_each_other(world: World, admin: Visitor) -> None:
    """Each once; the cursor keeps to the filters."""
    for n in range(60):
        fact = ReplayCancelled(f"cmd_{n}", "acme", "admin", NOW - n * SECOND, f"rpl_{n}", "", 0)
        log = world.api.context.log
        assert isinstance(log, MemoryLog)
        record = log.records(("changes", 0))[0]
        moved = type(record)(record.topic, 7, n, record.timestamp, None, b"", {})
        _insert(world.history, change_rows(moved, fact), f"t-{n}")
    first = admin.get("audit?subject=replay&within=24h")
    more = re.search(r'href="/dashboard/(audit\?[^"]*cursor=[^"]*)"', first.text)
    assert more
    second = admin.get(more[1].replace("&amp;", "&"))
    ids = [re.findall(r'title="(rpl_\d+)"', page.text) for page in (first, second)]
    assert ids[0] + ids[1] == [f"rpl_{n}" for n in range(60)]
    assert 'rel="next"' not in second.text


def test_bad_filters_and_nothing_to_show_are_said_on_the_audit(admin: Visitor) -> None:
    """Beside the field; and what to do where there is nothing."""
    assert "No changes yet" in shown(admin.get("audit"))
    assert "Nothing matches" in shown(admin.get("audit?actor=nobody"))
    page = admin.get("audit?since=yesterday")
    assert "must be a time such as" in shown(page, 422)
    assert 'id="e-since"' in page.text
    assert "begin without" in shown(admin.get("audit?cursor=abc"), 422)


def test_a_tenant_sees_its_own_changes_and_accounts(world: World, acme: Visitor) -> None:
    """Nothing of others, and nothing of how the whole system is checked."""
    world.publish("other")
    project(world.api, world.history)
    page = acme.get("audit")
    text = shown(page)
    assert world.endpoints["acme"] in page.text
    assert world.endpoints["other"] not in page.text
    assert "other.example.com" not in page.text
    assert "Nothing to account for yet" in text
    assert "Last check" not in text
    assert "bound to the tenant" in shown(acme.get("audit?tenant=other"), 403)


def test_the_accounts_say_what_became_of_all(world: World, admin: Visitor) -> None:
    """As the API's route counts it; htmx gets that part alone."""
    world.publish("acme")
    world.attempt("acme", 0)
    world.publish("acme")
    world.attempt("acme", 1, error_class="http_5xx", decision="failed", reason="http_5xx", retry_at=0)
    world.publish("other")
    text = shown(admin.get("audit"))
    assert "Everything is accounted for" in text
    assert re.search("Matched 3 message . endpoint Delivered 1 Failed 1", text)
    assert "does not name the accounting group" in text
    part = admin.get("audit", hx_request="true").text
    assert "Everything is accounted for" in part
    assert "<html" not in part
    assert "Who did what" not in part


@pytest.mark.parametrize(
    ("age_s", "problems", "said"),
    [
        (5, {"overdue": 0, "history": 0}, ("0 unaccounted", "Nothing to account for yet")),
        (
            5,
            {"overdue": 2, "unrouted": 0, "history": 1},
            ("3 are not where they must be", "2 deliveries that"),
        ),
        (1_000, {"overdue": 0}, ("The log is not being checked", "0 unaccounted")),
        (1_000, {"overdue": 1}, ("1 are not where they must be", "1 deliveries that")),
        (None, {}, ("None yet: it has just begun",)),
    ],
)
def test_the_last_check_is_told_with_its_age(
    history: History, age_s: float | None, problems: dict[str, int], said: tuple[str, ...]
) -> None:
    """All found: fine; something missing: bad, and what; long ago: nobody looks; never: it has just begun."""
    at = 0.0 if age_s is None else SystemClock().now() / 1e6 - age_s
    with exporting(exported(at, **problems)) as url, audited(history, f"accounting={url}") as visitor:
        page = shown(visitor.get("audit"))
        assert all(each in page for each in said), page


def test_the_accounting_group_away_is_said(history: History) -> None:
    """It does not answer: nothing is claimed of its check."""
    with exporting("") as url:
        gone = url
    with audited(history, f"accounting.1={gone}") as visitor:
        text = shown(visitor.get("audit"))
        assert "the accounting group does not answer" in text
        assert "The log is not being checked" in text
        assert "0 unaccounted" not in text


def test_clickhouse_away_is_said() -> None:
    """The page stands: what the accounting group says is told, and neither counts nor changes are."""
    with running(dev_context()) as api:
        text = shown(Visitor(api, KEY).get("audit"))
        assert "The history cannot be asked" in text
        assert "The changes cannot be listed now" in text
        assert "Not now: ClickHouse does not answer" in text
        assert "Matched" not in text


def test_what_changed_is_said_in_words() -> None:
    """Settings beside the rest, only those that changed, times and durations as people read them."""
    details = {
        "version": 2,
        "fields": ["url", "timeout_ms", "enabled"],
        "settings": {"url": "https://x/", "timeout_ms": 1500, "enabled": False, "profile": "standard"},
    }
    said = "fields: url, timeout_ms, enabled; url: https://x/; timeout: 1.5 s; enabled: no"
    assert said_of({"details": json.dumps(details)}) == said
    replay = {"since": 0, "until": 1_795_640_687_667_283, "only": "all", "rate": 0.0, "ends": [1, 2]}
    assert said_of({"details": json.dumps(replay)}) == "until: 2026-11-25 21:04:47 UTC; only: all"
    policy = {"settings": {"retry_policy": [1_000, 120_000], "event_types": None, "headers": []}}
    assert said_of({"details": json.dumps(policy)}) == "retry policy: 1 s, 2 m"
    long = said_of({"details": json.dumps({"reason": "x" * 999})})
    assert (len(long), long[-1]) == (DETAILS_MAX + 1, "…")
