"""Errors of the commands that ask the API: exit status, words, and what scripts read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from engine.cli.api_client import path
from engine.cli.times import time_ahead
from engine.core.directory import CreateTenant
from engine.dev.process import free_port, wait_until
from engine.ports import Output
from engine.runtime.context import Context
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import KEY, make_context
from tests.integration.test_cli_api import ok, run, served

pytestmark = pytest.mark.integration
NOW = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def context() -> Context:
    """A log of its own."""
    return make_context()


@pytest.fixture(scope="module")
def asked(context: Context) -> Iterator[Mapping[str, str]]:
    """Where an API without a history is, and a key for it."""
    port = free_port()
    with served(context, History(lambda: connect(context.settings)), port):
        yield {
            "HOOKLOG_API": f"http://127.0.0.1:{port}",
            "HOOKLOG_API_KEY": KEY,
            "HOOKLOG_LOG_LEVEL": "error",
        }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"HOOKLOG_API_KEY": "é"}, "HOOKLOG_API_KEY: must be printable ASCII"),
        ({"HOOKLOG_API_KEY": "hl_\n1"}, "HOOKLOG_API_KEY: must be printable ASCII"),
        ({"HOOKLOG_API": "nonsense"}, "HOOKLOG_API: is no URL"),
        ({"HOOKLOG_API": "ftp://host"}, "HOOKLOG_API: is no URL"),
        ({"HOOKLOG_API": "http://"}, "HOOKLOG_API: is no URL"),
        ({"HOOKLOG_API": "http://host:port"}, "HOOKLOG_API: "),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(changed: Mapping[str, str], said: str) -> None:
    """2, before anybody is asked."""
    ended = run({"HOOKLOG_API_KEY": KEY, **changed}, "tenants", "list")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {said}"), ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_with_json_the_apis_problem_is_on_standard_error(asked: Mapping[str, str]) -> None:
    """As the API wrote it; nothing that a parser of the answer could take for one is on standard output."""
    ended = run(asked, "endpoints", "get", "ep_none", "-o", "json")
    assert (ended.exit_code, ended.stdout) == (1, "")
    problem = json.loads(ended.stderr)
    assert (problem["status"], problem["detail"]) == (404, "there is no endpoint 'ep_none'")
    assert run(asked, "endpoints", "get", "ep_none").stderr.startswith("error: there is no endpoint")


def test_with_json_any_other_error_is_a_problem_too(asked: Mapping[str, str]) -> None:
    """Without the status of an answer, since there was none."""
    wrong = run(asked, "deliveries", "list", "--since", "yesterday", "-o", "json")
    away = run({**asked, "HOOKLOG_API": "http://127.0.0.1:9"}, "tenants", "list", "--output=json")
    for ended, status, title in (
        (wrong, 2, "Wrong input or settings"),
        (away, 3, "A service is unreachable"),
    ):
        problem = json.loads(ended.stderr)
        assert (ended.exit_code, ended.stdout, problem["title"]) == (status, "", title)
        assert set(problem) == {"type", "title", "detail"}


def test_an_id_that_is_a_dot_segment_is_refused_when_it_is_made(asked: Mapping[str, str]) -> None:
    """For tenants, by whatever makes them, and event types; ids of messages hold no dots at all."""
    dots = "must not be . or .., which no URL can name"
    url = "https://hooks.example.com/in"
    for arguments in (
        ("tenants", "create", ".."),
        ("tenants", "create", "."),
        ("endpoints", "create", url, "--tenant", ".."),
        ("event-types", "put", ".."),
    ):
        ended = run(asked, *arguments)
        assert (ended.exit_code, dots in ended.stderr) == (1, True), ended.stderr


def test_a_tenant_that_is_called_a_dot_segment_can_be_deleted(
    context: Context, asked: Mapping[str, str]
) -> None:
    """One that an older hooklog has let in."""
    assert path("tenants", "..") == "/v1/tenants/%2E%2E"
    log = context.log
    assert isinstance(log, MemoryLog)
    command = CreateTenant("cmd_dots", "..", "admin", 0, "Dots")
    log.append(Output("commands", 0, b"..", context.codec.encode(command)))

    def names() -> list[object]:
        data = ok(asked, "tenants", "list")["data"]
        assert isinstance(data, list)
        return [each["id"] for each in data]

    assert wait_until(lambda: ".." in names(), 10)
    assert ok(asked, "tenants", "delete", "..", "--yes") == {}
    assert ".." not in names()


def test_a_key_expires_in_so_many_days(asked: Mapping[str, str]) -> None:
    """`30d` is in 30 days, not 30 days ago."""
    key = ok(asked, "keys", "create", "--scope", "read", "--expires-at", "30d")
    left = datetime.fromisoformat(str(key["expires_at"])) - datetime.fromtimestamp(time.time(), UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


def test_a_time_to_come_is_rfc_3339_or_a_duration_ahead() -> None:
    """Microseconds since 1970 UTC."""
    assert time_ahead("30d", "--expires-at", NOW) == NOW + 30 * 86_400_000_000
    assert time_ahead("2026-01-01T00:00:01Z", "--expires-at", NOW) == NOW + 1_000_000
