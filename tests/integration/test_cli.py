"""The command `hooklog`: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import fastavro
import httpx
import pytest

import schemas
from engine.cli.errors import CommandError
from engine.cli.publish import send_all
from engine.cli.sources import Item, RefusedItem, Rules, read_items
from engine.cli.tail import described
from engine.core.model import DeliveryScheduled, MessagePublished
from engine.core.profile import Profile, request_headers, signing_key
from engine.core.routing import partition_of
from engine.ports import Acknowledged, Output, QueueFullError, Record
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.profiles import load_profiles
from engine.runtime.memory import MemoryLog, MemoryProducer
from schemas.codec import Codec, load

LIMIT_S = 120.0
COMMAND = (sys.executable, "-m", "engine.cli.main")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RULES = Rules("acme", "", 1_000, lambda: 7)
NOBODY = {
    "HOOKLOG_KAFKA": "127.0.0.1:9",
    "HOOKLOG_KAFKA_WAIT_S": "0.3",
    "HOOKLOG_CLICKHOUSE": "http://127.0.0.1:9",
}
EVENTS = Path(__file__).parents[2] / "engine" / "dev" / "demo" / "events.avro"


def hooklog(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, **(env or {})},
    )


def read(file: Path, content: bytes) -> list[Item]:
    """What a file of this content holds."""
    file.write_bytes(content)
    with file.open("rb") as stream:
        return list(read_items(stream, RULES))


def test_lines_of_json_become_messages_and_wrong_ones_are_named(tmp_path: Path) -> None:
    """Payloads keep their bytes, options fill in, empty lines count, errors say where."""
    lines = [
        b'{"tenant":"t","event_type":"a.b","payload":{ "x": 1.0 },"id":"one"}',
        b"",
        b'{"event_type":"a.b","payload":1}',
        b"{oops",
        b'{"event_type":"a b","payload":1}',
        b'{"event_type":"a","payload":"' + b"x" * 1_000 + b'"}',
    ]
    found = read(tmp_path / "in.ndjson", b"\n".join(lines))
    assert [where for where, _ in found] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    first, second, *refused = [item for _, item in found]
    assert first == MessagePublished("t", "one", "a.b", b'{ "x": 1.0 }', 7)
    assert isinstance(second, MessagePublished)
    assert (second.tenant, len(second.id) > 20) == ("acme", True)
    reasons = [item.reason.split(":")[0] for item in refused if isinstance(item, RefusedItem)]
    assert reasons == ["is not a JSON object", "event_type", "payload"]


def test_an_avro_container_is_read_as_its_producer_wrote_it() -> None:
    """All records of the shipped file, times in microseconds, payloads byte for byte."""
    with EVENTS.open("rb") as stream:
        rules = Rules("", "", 256 << 10, lambda: 0)
        messages = [item for _, item in read_items(stream, rules) if isinstance(item, MessagePublished)]
    with EVENTS.open("rb") as stream:
        written = [record for record in fastavro.reader(stream) if isinstance(record, dict)]
    assert len(messages) == len(written) >= 2_000
    assert [m.payload for m in messages] == [record["payload"] for record in written]
    assert [m.published_at for m in messages] == [record["published_at"] for record in written]


def test_times_of_an_avro_container_that_names_their_logical_type_are_microseconds(tmp_path: Path) -> None:
    """A producer's container has the public schema whole, `timestamp-micros` included."""
    schema = load(Path(schemas.__file__).with_name("message_published.avsc"))
    message = MessagePublished("t", "one", "a", b"{}", 1_700_000_000_123_457)
    with (tmp_path / "own.avro").open("wb") as file:
        fastavro.writer(file, schema, [asdict(message)])
    assert read(tmp_path / "own.avro", (tmp_path / "own.avro").read_bytes()) == [("record 1", message)]


def test_a_broken_avro_container_is_told_in_words(tmp_path: Path) -> None:
    """A container that ends in the middle is wrong input, not a traceback."""
    with pytest.raises(CommandError, match="cannot be read"):
        read(tmp_path / "half.avro", EVENTS.read_bytes()[:50_000])


def test_published_messages_are_where_a_java_producer_would_put_them() -> None:
    """Key and partition follow the contract; counts are of what was acknowledged."""
    log = MemoryLog(4, SystemClock())
    items: Sequence[Item] = [
        ("line 1", MessagePublished("t", "one", "a", b"1", 7)),
        ("line 2", RefusedItem("no")),
        ("line 3", MessagePublished("t", "two", "a", b"2", 7, "order")),
    ]
    shown: list[int] = []
    counts = send_all(log, items, shown.append)
    assert (counts.published, counts.refused, counts.errors, shown) == (2, 1, ["line 2: no"], [2])
    for key in ("one", "t:order"):
        (record,) = log.records(("messages", partition_of(key, 4)))[:1]
        assert record.key in (b"one", b"t:order")


class Narrow(MemoryLog):
    """A log whose producers have room for two records."""

    def producer(self, *, linger_ms: float = 0) -> MemoryProducer:
        """Make such a producer."""
        return NarrowProducer(self)


class NarrowProducer(MemoryProducer):
    """Refuses what it has no room for."""

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Queue it, or QueueFullError."""
        if len(self) == 2:
            raise QueueFullError("no room")
        super().send(output, acknowledged)


def test_publishing_waits_for_room_and_loses_nothing() -> None:
    """More messages than the producer has room for: each is on the log once, in order."""
    log = Narrow(1, SystemClock())
    messages = [MessagePublished("t", f"m{n}", "a", b"{}", 7) for n in range(20)]
    counts = send_all(log, [("", message) for message in messages], lambda sent: None)
    assert counts.published == len(messages)
    written = [Codec().decode(record.value) for record in log.records(("messages", 0))]
    assert written == messages


def test_tail_shows_records_as_plain_values() -> None:
    """Bytes are text where they are, base64 where not; what cannot be decoded says why."""
    codec = Codec()
    value = codec.encode(MessagePublished("t", "one", "a", "{é}".encode(), 7))
    record = Record("messages", 1, 2, 0, b"one", value, {"h": b"\xff"})
    shown = described(record, codec)
    assert shown["record"] == "MessagePublished"
    assert (shown["at"], shown["key"], shown["headers"]) == (
        "1970-01-01T00:00:00Z",
        "one",
        {"h": "base64:/w=="},
    )
    found = shown["value"]
    assert isinstance(found, dict)
    assert found["payload"] == "{é}"
    assert "undecodable" in str(described(record._replace(value=b"\0"), codec)["record"])
    assert described(record._replace(value=None), codec)["record"] == "tombstone"


def signed_request(profile: Profile, secret: str) -> tuple[dict[str, str], bytes]:
    """What the dispatcher would send."""
    body = b'{"type":"room.ended","data":{}}'
    names = ("dlv", "t", "ep", "msg", "room.ended")
    delivery = DeliveryScheduled(*names, 1, "scheduled", "", 0, 0, profile.name, 0, 0, 0, 0, body)
    return request_headers(
        profile, delivery, [signing_key(profile, secret)], 1_700_000_000_000_000
    ), delivery.body


def test_verify_says_whether_a_signature_fits(tmp_path: Path) -> None:
    """0 for the body that was signed, 1 for another one, 2 for a header that is none."""
    headers, body = signed_request(load_profiles()["standard"], SECRET)
    file = tmp_path / "body"
    options = [text for name, value in headers.items() for text in ("-H", f"{name}: {value}")]
    file.write_bytes(body)
    assert hooklog("verify", str(file), "--secret", SECRET, *options).returncode == 0
    file.write_bytes(body + b" ")
    assert hooklog("verify", str(file), "--secret", SECRET, *options).returncode == 1
    assert hooklog("verify", str(file), "--secret", SECRET, "-H", "oops").returncode == 2


@contextmanager
def listening(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`hooklog listen -o json`; its URL. Afterwards it must have ended cleanly at SIGINT."""
    argv = [*COMMAND, "listen", "-o", "json", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = json.loads(process.stdout.readline())["listening"]
        try:
            yield url, process
        finally:
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")


def test_listen_verifies_shows_and_forwards() -> None:
    """A valid signature is answered 200 and passed on, a wrong one 401 and not."""
    headers, body = signed_request(load_profiles()["standard"], SECRET)
    with (
        listening() as (behind, second),
        listening("--secret", SECRET, "--forward-to", behind) as (url, first),
    ):
        assert httpx.post(f"{url}/in", content=body, headers=headers, timeout=LIMIT_S).status_code == 200
        assert (
            httpx.post(f"{url}/in", content=body + b" ", headers=headers, timeout=LIMIT_S).status_code == 401
        )
        assert first.stdout is not None
        assert second.stdout is not None
        shown = [json.loads(first.stdout.readline()) for _ in range(2)]
        passed_on = json.loads(second.stdout.readline())
    assert [(s["signature"], s["answered"], s["event"]) for s in shown] == [
        ("valid", 200, "room.ended"),
        ("invalid", 401, "room.ended"),
    ]
    assert (passed_on["body"], passed_on["id"], passed_on["path"]) == (
        body.decode(),
        headers["webhook-id"],
        "/in",
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--help",), 0, ""),
        (("nope",), 2, "nope"),
        (("run", "nope"), 2, "no group 'nope'"),
        (("run", "api", "router"), 2, "process of its own"),
        (("tail", "nope"), 2, "no topic 'nope'"),
        (("publish", "/no/such/file"), 2, "No such file"),
        (("listen", "--profile", "nope"), 2, "no profile 'nope'"),
        (("listen", "--secret", "short"), 2, "base64"),
        (("topics", "check"), 3, "no Kafka broker answered"),
        (("tail", "attempts"), 3, "no Kafka broker answered"),
        (("reconcile",), 3, "no Kafka broker answered"),
        (("sql", "SELECT 1"), 3, "Connection refused"),
        (("migrate",), 3, "Connection refused"),
    ],
)
def test_expected_failures_end_with_a_status_and_a_line(
    arguments: Sequence[str], status: int, said: str
) -> None:
    """2 for wrong input, 3 for a service that is away; never a traceback."""
    ended = hooklog(*arguments, env=NOBODY)
    assert (ended.returncode, said in ended.stderr, "Traceback" in ended.stderr) == (status, True, False)


def test_config_masks_secrets_and_refuses_unknown_settings() -> None:
    """The effective settings are there; keys and passwords are not."""
    secrets = {
        "HOOKLOG_ADMIN_KEY": "CANARY-1",
        "HOOKLOG_CLICKHOUSE_PASSWORD": "CANARY-2",
        "HOOKLOG_CLICKHOUSE": "http://u:CANARY-3@127.0.0.1:9",
        "HOOKLOG_PARTITIONS": "5",
    }
    text, as_json = hooklog("config", env=secrets), hooklog("config", "-o", "json", env=secrets)
    assert "HOOKLOG_PARTITIONS=5\n" in text.stdout
    assert json.loads(as_json.stdout)["partitions"] == 5
    assert "CANARY" not in text.stdout + as_json.stdout + text.stderr + as_json.stderr
    refused = hooklog("config", env={"HOOKLOG_NOPE": "CANARY-4"})
    assert (refused.returncode, "HOOKLOG_NOPE" in refused.stderr, "CANARY" in refused.stderr) == (
        2,
        True,
        False,
    )


def test_starting_the_command_loads_no_library_that_the_command_does_not_need() -> None:
    """Neither the API's libraries nor Kafka's nor rich are imported for the list of commands."""
    heavy = {
        "fastapi",
        "rich",
        "chdb",
        "confluent_kafka",
        "pydantic",
        "aiohttp",
        "httpx",
        "clickhouse_connect",
    }
    code = "import sys, engine.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy & set(ended.stdout.split()) == set()


@pytest.mark.integration
def test_the_commands_work_on_a_real_broker(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Create, check, publish a file, and read it back decoded."""
    env = {"HOOKLOG_KAFKA": kafka, "HOOKLOG_PREFIX": prefix, "HOOKLOG_PARTITIONS": "2"}
    assert hooklog("topics", "check", env=env).returncode == 1
    assert hooklog("topics", "create", env=env).returncode == 0
    assert hooklog("topics", "check", env=env).returncode == 0
    file = tmp_path / "in.ndjson"
    file.write_text('{"tenant":"t","event_type":"a","payload":{"n":1.0},"id":"one"}\n{"tenant":"t"}\n')
    published = hooklog("publish", str(file), "-o", "json", env=env)
    assert (published.returncode, json.loads(published.stdout)["published"]) == (2, 1)
    assert "line 2: payload: is missing" in published.stderr
    tailed = hooklog("tail", "messages", "--from-beginning", "-n", "1", "-o", "json", env=env)
    assert tailed.returncode == 0
    assert json.loads(tailed.stdout)["value"]["payload"] == '{"n":1.0}'
