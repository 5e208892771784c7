"""The commands that ask the API, against one that is served on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import clickhouse_connect
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from consumers import control, replayer
from engine.api.app import create_app
from engine.api.services import started
from engine.cli.main import app
from engine.dev.process import free_port, wait_until
from engine.runtime.configuration.catalogues import shipped
from engine.runtime.context import Context
from engine.runtime.history.clickhouse import History
from engine.runtime.history.migration import migrate
from engine.runtime.history.rows import columns, finished_rows, routed_rows
from engine.runtime.settings import load_settings
from tests.integration.api_fixtures import KEY, LIMIT_S, make_context
from tests.integration.history_fixtures import TOPIC, attempt, batch, record, routing

pytestmark = pytest.mark.integration

URL = "https://hooks.example.com/in"


@contextmanager
def served(context: Context, history: History, port: int) -> Iterator[None]:
    """The API on a thread of its own, with control and replayer beside it."""
    is_ready, stop, servers = threading.Event(), threading.Event(), list[uvicorn.Server]()

    async def serve() -> None:
        async with started(context, history) as services:
            config = uvicorn.Config(create_app(services), port=port, lifespan="off", log_config=None)
            servers.append(uvicorn.Server(config))
            await servers[0].serve()

    groups = [
        threading.Thread(target=control.run, args=(context, stop, is_ready.set)),
        threading.Thread(target=replayer.run, args=(context, stop, lambda: None)),
    ]
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    for started_first in (*groups, thread):
        started_first.start()
    try:
        assert is_ready.wait(LIMIT_S)
        assert wait_until(lambda: bool(servers) and servers[0].started, LIMIT_S)
        yield
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(LIMIT_S)
        stop.set()
        for group in groups:
            group.join(LIMIT_S)


@pytest.fixture(scope="module")
def env(chdb: str) -> Iterator[Mapping[str, str]]:
    """Where one API for all tests here is, which knows of one failed delivery."""
    settings = load_settings(clickhouse_database="cli")
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware", autogenerate_session_id=False)
    migrate(client, settings)
    client.database = settings.clickhouse_database
    history, made, port = History(lambda: client), batch(routing(0, "ep1")), free_port()
    ended = attempt(0, "ep1", 1, "failed")
    for rows in (
        routed_rows(record("routings", 0, made), made, TOPIC),
        finished_rows(record("attempts", 0, ended), ended),
    ):
        for table, of_table in rows.items():
            history.insert(table, columns(table, of_table), f"{table}-{len(rows)}-{id(rows)}")
    # a command sets up the logs of its process, which here is that of the groups too
    quiet = {"HOOKLOG_LOG_LEVEL": "error"}
    with served(make_context(), history, port):
        yield {"HOOKLOG_API": f"http://127.0.0.1:{port}/", "HOOKLOG_API_KEY": KEY, **quiet}


def run(env: Mapping[str, str], *arguments: str, stdin: str = "") -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, arguments, env=dict(env), input=stdin)


def ok(env: Mapping[str, str], *arguments: str, stdin: str = "") -> dict[str, object]:
    """Its one document of JSON."""
    ended = run(env, *arguments, "-o", "json", stdin=stdin)
    assert ended.exit_code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def ids(answer: Mapping[str, object], name: str = "id") -> list[object]:
    """What a list names."""
    data = answer["data"]
    assert isinstance(data, list)
    return [item[name] for item in data]


def test_an_endpoint_lives_from_the_command_line(env: Mapping[str, str]) -> None:
    """Create, look, change, reset, rotate, disable, enable, delete: what each answers is what is so."""
    settings = ("--event-type", "room.*", "--event-type", "a.b", "--header", "X-Team: blue", "--retry", "5s")
    made = ok(env, "endpoints", "create", URL, "--tenant", "life", *settings, "--timeout-ms", "700")
    endpoint = str(made["id"])
    assert made["event_types"] == ["room.*", "a.b"]
    assert (made["headers"], made["retry_policy"], made["timeout_ms"]) == (
        {"X-Team": "********"},
        ["5s"],
        700,
    )
    secret = made.pop("secret")
    assert ok(env, "endpoints", "get", endpoint) == made
    assert ids(ok(env, "endpoints", "list", "--tenant", "life")) == [endpoint]
    changed = ok(env, "endpoints", "update", endpoint, "--rate-limit", "5", "--reset", "event_types")
    assert (changed["rate_limit"], changed["event_types"], changed["timeout_ms"]) == (5.0, None, 700)
    rotated = ok(env, "endpoints", "rotate-secret", endpoint, "--overlap", "1h")
    assert rotated["secret"] != secret
    assert ok(env, "endpoints", "disable", endpoint)["enabled"] is False
    assert ok(env, "endpoints", "enable", endpoint)["enabled"] is True
    assert ok(env, "endpoints", "delete", endpoint, "--yes") == {}
    assert ids(ok(env, "endpoints", "list", "--tenant", "life")) == []


def test_a_secret_from_standard_input_is_the_one_that_signs(env: Mapping[str, str]) -> None:
    """`--secret -` keeps it out of the list of processes."""
    given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = ok(env, "endpoints", "create", URL, "--tenant", "stdin", "--secret", "-", stdin=given + "\n")
    assert made["secret"] == given


def test_people_see_a_secret_once_and_apart(env: Mapping[str, str]) -> None:
    """It stands on a line of its own, and in no table afterwards."""
    made = run(env, "endpoints", "create", URL, "--tenant", "once")
    line = made.stdout.splitlines()[-1]
    assert line.startswith("signing secret, shown this once: whsec_")
    secret, endpoint = line.rpartition(" ")[2], made.stdout.splitlines()[1].partition("\t")[2]
    assert made.stdout.count(secret) == 1
    shown = run(env, "endpoints", "get", endpoint)
    assert (shown.exit_code, URL in shown.stdout, secret in shown.stdout) == (0, True, False)


def test_tenants_and_keys(env: Mapping[str, str]) -> None:
    """A key is bound to its tenant, works, and is refused once it is deleted."""
    assert ok(env, "tenants", "create", "acme", "--name", "Acme Inc.")["name"] == "Acme Inc."
    assert "acme" in ids(ok(env, "tenants", "list"))
    key = ok(env, "keys", "create", "--scope", "read", "--tenant", "acme", "--description", "ci")
    bound = {**env, "HOOKLOG_API_KEY": str(key["key"])}
    assert ids(ok(bound, "tenants", "list")) == ["acme"]
    refused = run(bound, "endpoints", "create", URL)
    assert (refused.exit_code, "manage" in refused.stderr) == (1, True)
    assert key["id"] in ids(ok(env, "keys", "list", "--tenant", "acme"))
    assert ok(env, "keys", "delete", str(key["id"]), "--yes") == {}
    assert run(bound, "tenants", "list").exit_code == 1
    assert ok(env, "tenants", "delete", "acme", "--yes") == {}
    assert "acme" not in ids(ok(env, "tenants", "list"))


def test_event_types_are_put_loaded_and_deleted(env: Mapping[str, str], tmp_path: Path) -> None:
    """A schema comes from a file; a platform's catalogue is loaded whole, also a second time."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type":"object"}')
    put = ok(env, "event-types", "put", "own.type", "--description", "ours", "--schema", str(schema))
    assert (put["name"], put["schema"]) == ("own.type", {"type": "object"})
    names = [each.name for each in shipped("bedrud")]
    for _ in range(2):
        assert ok(env, "event-types", "load", "bedrud") == {"loaded": names}
    assert set(names) < set(ids(ok(env, "event-types", "list"), "name"))
    assert ok(env, "event-types", "delete", "own.type", "--yes") == {}
    assert set(ids(ok(env, "event-types", "list"), "name")) == set(names)


def test_messages_are_sent_byte_for_byte(env: Mapping[str, str], tmp_path: Path) -> None:
    """From a file or standard input; a number that Python would round comes back as it went."""
    payload = '{"n":12345678901234567890123,"x":1.0}'
    sent = ok(env, "messages", "send", "room.ended", "--tenant", "acme", "--id", "m-cli", stdin=payload)
    assert sent == {"id": "m-cli"}
    shown = run(env, "messages", "get", "m-cli", "-o", "json")
    assert f'"payload":{payload}' in shown.stdout
    lines = tmp_path / "batch.ndjson"
    lines.write_text('{"tenant":"t","event_type":"a","payload":1,"id":"b1"}\n\n{"tenant":"t","payload":1}\n')
    batch_sent = run(env, "messages", "send-batch", str(lines), "-o", "json")
    assert batch_sent.exit_code == 1
    assert [item["status"] for item in json.loads(batch_sent.stdout)["data"]] == [202, 422]


def test_the_history_is_listed(env: Mapping[str, str]) -> None:
    """Deliveries, one with its attempts, messages, changes and the accounting."""
    (delivery,) = ids(
        ok(env, "deliveries", "list", "--status", "failed", "--since", "1d", "--endpoint", "ep1")
    )
    one = ok(env, "deliveries", "get", str(delivery))
    assert (one["status"], one["attempt_count"]) == ("failed", 1)
    text = run(env, "deliveries", "get", str(delivery)).stdout
    assert "\nattempts:\n" in text
    assert "http_5xx" in text
    assert ids(ok(env, "messages", "list", "--event-type", "room.ended")) == ["m0"]
    assert ids(ok(env, "messages", "list", "--until", "1d")) == []
    assert ok(env, "changes", "list", "--subject", "endpoint") == {"data": [], "next": None}
    assert ok(env, "accounting")["failed"] == 1


def test_replays_are_counted_started_shown_and_cancelled(env: Mapping[str, str]) -> None:
    """A dry run only counts; a replay is listed, and is over once it is cancelled or through."""
    tenant = ("--tenant", "again")
    ok(env, "endpoints", "create", URL, *tenant)
    what = ("replays", "start", "--since", "1h", *tenant, "--only", "missed", "--rate", "10")
    assert ok(env, *what, "--dry-run")["deliveries"] == 0
    assert ids(ok(env, "replays", "list", *tenant)) == []
    started = str(ok(env, *what, "--idempotency-key", "k")["id"])
    assert ids(ok(env, "replays", "list", *tenant)) == [started]
    shown = ok(env, "replays", "get", started)
    assert (shown["tenant"], shown["only"], shown["rate"]) == ("again", "missed", 10.0)
    ended = run(env, "replays", "cancel", started)
    assert ended.exit_code == (1 if "has ended" in ended.stderr else 0)
    assert wait_until(lambda: ok(env, "replays", "get", started)["status"] != "running", LIMIT_S)


def test_a_delivery_whose_endpoint_is_gone_cannot_be_made_again(env: Mapping[str, str]) -> None:
    """1, and the words name the endpoint."""
    (delivery,) = ids(ok(env, "deliveries", "list", "--status", "failed"))
    refused = run(env, "deliveries", "resend", str(delivery))
    assert (refused.exit_code, "ep1" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("endpoints", "get", "ep_none"), 1, "ep_none"),
        (("endpoints", "create", "ftp://x", "--tenant", "t"), 1, "url"),
        (("endpoints", "create", URL, "--header", "oops"), 2, "NAME: VALUE"),
        (("endpoints", "update", "ep_none"), 2, "nothing to change"),
        (("endpoints", "update", "ep_none", "--reset", "url"), 2, "choose among"),
        (("endpoints", "delete", "ep_none"), 2, "--yes"),
        (("endpoints", "delete", "ep_none", "--yes"), 1, "ep_none"),
        (("deliveries", "list", "--since", "yesterday"), 2, "--since"),
        (("deliveries", "list", "--status", "lost"), 2, "lost"),
        (("deliveries", "list", "--cursor", "forged"), 1, "cursor"),
        (("event-types", "load", "nope"), 2, "nope"),
        (("messages", "send", "a", "/nowhere", "--tenant", "t"), 2, "nowhere"),
    ],
)
def test_what_is_refused_is_told_in_one_line(
    env: Mapping[str, str], arguments: tuple[str, ...], status: int, said: str
) -> None:
    """1 what the API refuses, 2 what is wrong before it is asked; nothing on standard output."""
    ended = run(env, *arguments)
    assert (ended.exit_code, said in ended.stderr, ended.stdout) == (status, True, "")


def test_without_an_api_or_a_key(env: Mapping[str, str]) -> None:
    """3 when nobody answers, with the address; 2 without a key; the key is never told."""
    away = run({**env, "HOOKLOG_API": f"http://127.0.0.1:{free_port()}"}, "tenants", "list")
    assert (away.exit_code, "HOOKLOG_API" in away.stderr, KEY in away.stderr) == (3, True, False)
    keyless = run({**env, "HOOKLOG_API_KEY": ""}, "tenants", "list")
    assert (keyless.exit_code, "HOOKLOG_API_KEY" in keyless.stderr) == (2, True)
    wrong = run({**env, "HOOKLOG_API_KEY": "hl_wrong"}, "tenants", "list")
    assert (wrong.exit_code, "hl_wrong" in wrong.stderr) == (1, False)


def test_an_endpoints_health(env: Mapping[str, str]) -> None:
    """A table for people, the answer itself for scripts."""
    made = run(env, "endpoints", "create", URL, "--tenant", "healthy", "-o", "json")
    id = json.loads(made.stdout)["id"]
    shown = run(env, "endpoints", "health", id)
    assert shown.exit_code == 0, shown.output
    assert "nothing arrives: no message was published" in " ".join(shown.stdout.split())
    answer = run(env, "endpoints", "health", id, "--hours", "1", "-o", "json")
    assert json.loads(answer.stdout)["state"] == "healthy"
