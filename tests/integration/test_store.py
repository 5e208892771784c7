"""The store: stock clickhouse-connect works against it as against a ClickHouse server."""

from __future__ import annotations

import gzip
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from engine.dev.process import free_port, spawn, stop, tail, wait_until
from engine.dev.statement import insert_with_data, rows_format

pytestmark = pytest.mark.integration
ROWS = 10_000
LIMIT_S = 60.0


class Store:
    """A store process on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "store.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [sys.executable, "-m", "engine.dev.store", "--dir", str(self.folder), "--port", str(self.port)]
        self.process = spawn(argv, self.log)
        assert wait_until(self.answers, LIMIT_S), tail(self.log)

    def answers(self) -> bool:
        """True once /ping does."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ping").text == "Ok.\n"
        except httpx.TransportError:
            return False

    def client(self, **options: Any) -> Client:
        """A stock client."""
        return clickhouse_connect.get_client(host="127.0.0.1", port=self.port, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for this module."""
    store = Store(tmp_path_factory.mktemp("store"))
    store.start()
    yield store
    stop(store.process, LIMIT_S)


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    """A stock client in an empty database of its own."""
    with store.client() as client:
        client.command("DROP DATABASE IF EXISTS d")
        client.command("CREATE DATABASE d ENGINE = Atomic")
        client.database = "d"
        yield client


def post(store: Store, body: bytes, **parameters: str) -> httpx.Response:
    """A bare request, as curl would send it."""
    return httpx.post(f"http://127.0.0.1:{store.port}/", params=parameters, content=body)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_insert_and_query(store: Store, client: Client, compress: bool | str) -> None:
    """10,000 rows of columns go in, in any compression, and come back the same, selected by parameters."""
    client.command(
        "CREATE TABLE t (id UInt64, name String, at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY id"
    )
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    columns: list[list[Any]] = [list(range(ROWS)), [f"é\n\t'{n}" for n in range(ROWS)], [at] * ROWS]
    with store.client(compress=compress, database="d") as writer:
        summary = writer.insert("t", columns, ["id", "name", "at"], column_oriented=True)
        assert summary.written_rows == ROWS
        found = writer.query(
            "SELECT * FROM t WHERE id < {below:UInt64} AND name IN {names:Array(String)} ORDER BY id",
            {"below": 5, "names": ["é\n\t'3", "é\n\t'1", "é\n\t'9"]},
            tz_mode="aware",
        )
    assert found.result_rows == [(1, "é\n\t'1", at), (3, "é\n\t'3", at)]
    assert client.query("SELECT count(), sum(id) FROM t").result_rows == [(ROWS, ROWS * (ROWS - 1) // 2)]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_queries(store: Store, encoding: str) -> None:
    """A query may be compressed, in several pieces too."""
    pieces = b"".join({"gzip": gzip, "deflate": zlib}[encoding].compress(part) for part in (b"SELECT ", b"1"))
    url = f"http://127.0.0.1:{store.port}/"
    assert httpx.post(url, content=pieces, headers={"Content-Encoding": encoding}).text == "1\n"


def test_parameters_are_not_code(client: Client) -> None:
    """A parameter arrives as the value it is, whatever it holds."""
    for value in ["'; DROP TABLE t --", "back\\slash", "tab\tnew\nline\0nul", "{x:String}", "`é`"]:
        assert client.query("SELECT {value:String}", {"value": value}).first_row == (value,)


def test_long_queries_come_as_forms(client: Client) -> None:
    """A parameter too long for a URL is understood too."""
    many = [f"name{n}" for n in range(20_000)]
    assert client.query("SELECT length({many:Array(String)})", {"many": many}).first_row == (20_000,)


def test_commands(client: Client) -> None:
    """A command without rows answers with a summary, one with rows with its value."""
    client.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    client.command("INSERT INTO t VALUES (1), (2)")
    assert client.command("SELECT sum(a) FROM t") == 3
    assert client.command("EXISTS TABLE t") == 1
    assert client.query("SELECT a FROM t LIMIT 0").column_names == ("a",)


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT * FROM nowhere", 404, 60),
        ("SELECT nothing", 404, 47),
        ("SELECT throwIf(1)", 500, 395),
    ],
)
def test_errors(store: Store, client: Client, sql: str, status: int, code: int) -> None:
    """An engine's error has its status, its code in a header, and its text; a client raises it."""
    answer = post(store, sql.encode())
    assert answer.status_code == status
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception")
    with pytest.raises(DatabaseError, match=f"Code: {code}"):
        client.query(sql)


@pytest.mark.parametrize("engine", ["MergeTree", "ReplacingMergeTree"])
def test_deduplication_token(client: Client, engine: str) -> None:
    """A block that comes again with the same token counts once; one with another token counts."""
    client.command(
        f"CREATE TABLE t (a UInt64) ENGINE = {engine} ORDER BY a"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    client.command("SYSTEM STOP MERGES t")
    for token in ("p-0-1", "p-0-1", "p-2-3"):
        settings = {"insert_deduplication_token": token, "async_insert": 0}
        client.insert("t", [[1, 2]], ["a"], column_oriented=True, settings=settings)
    assert client.command("SELECT count() FROM t") == 4  # the copy of the first block was dropped


@pytest.mark.parametrize(
    ("format", "data", "rows"),
    [
        ("JSONEachRow", b'{"a":1,"s":"x"}\n\n{"a":2,"s":"a\\n\\nb"}\n', [(1, "x"), (2, "a\n\nb")]),
        ("CSV", b'1,"x"\n2,"a\n\nb"\n', [(1, "x"), (2, "a\n\nb")]),
        ("TabSeparated", b"1\tx\n2\ta\\n\\nb\n", [(1, "x"), (2, "a\n\nb")]),
        ("Values", b"(1,'x'),(2,'a\n\nb')", [(1, "x"), (2, "a\n\nb")]),
    ],
)
def test_text_formats(store: Store, client: Client, format: str, data: bytes, rows: list[object]) -> None:
    """Text goes in, its statement in the URL or before it, and comes out in the format asked for."""
    client.command("CREATE TABLE t (a UInt8, s String) ENGINE = MergeTree ORDER BY a")
    sql = f"INSERT INTO t (a, s) FORMAT {format}"
    assert post(store, data, query=sql, database="d").status_code == 200
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows
    client.command("TRUNCATE TABLE t")
    inline = sql.encode() + b"\n" + data
    assert post(store, inline, database="d").headers["X-ClickHouse-Summary"].count('"written_rows":"2"')
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows
    shown = post(store, b"SELECT a FROM t ORDER BY a", database="d", default_format="JSONCompactEachRow")
    assert (shown.text, shown.headers["X-ClickHouse-Format"]) == ("[1]\n[2]\n", "JSONCompactEachRow")


def test_settings_last_one_request(store: Store, client: Client) -> None:
    """Settings apply to their request only; an unknown one is an error."""
    query = b"SELECT value FROM system.settings WHERE name = 'max_threads'"
    assert post(store, query, max_threads="1").text == "1\n"
    assert post(store, query).text != "1\n"
    post(store, b"SET max_threads = 1", readonly="1")
    assert post(store, query).text != "1\n"
    assert post(store, b"SELECT 1", no_such_setting="1").headers["X-ClickHouse-Exception-Code"] == "115"


def test_get_changes_nothing(store: Store, client: Client) -> None:
    """GET answers queries and refuses everything that would change data."""
    url = f"http://127.0.0.1:{store.port}/"
    assert httpx.get(url, params={"query": "SELECT {x:UInt8}", "param_x": "7"}).text == "7\n"
    refused = httpx.get(url, params={"query": "CREATE DATABASE e"})
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (403, "164")


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_browsers_are_refused(store: Store, headers: dict[str, str]) -> None:
    """A page in a browser on this machine can send it nothing, by rebinding its name neither."""
    answer = httpx.post(f"http://127.0.0.1:{store.port}/", content=b"SELECT 1", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "body", "parameters"),
    [
        ({"Content-Encoding": "gzip"}, b"not gzip", {}),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"SELECT 1")[:-4], {}),
        ({"Content-Encoding": "snappy"}, b"SELECT 1", {}),
        ({}, b"SELECT 1", {"compress": "1"}),
        ({}, b"SELECT 1", {"max threads = 1 --": "1"}),
    ],
)
def test_bad_requests(store: Store, headers: dict[str, str], body: bytes, parameters: dict[str, str]) -> None:
    """What the store cannot read or do is refused, never guessed."""
    url = f"http://127.0.0.1:{store.port}/"
    assert httpx.post(url, content=body, headers=headers, params=parameters).status_code == 400


def test_sessions_of_one_client_do_not_block(store: Store) -> None:
    """Clients with and without session ids work side by side."""
    with store.client(session_id="s1") as one, store.client(autogenerate_session_id=False) as two:
        assert one.command("SELECT 1") == two.command("SELECT 1") == 1


def test_killed_store_keeps_acknowledged_rows(tmp_path: Path) -> None:
    """After SIGKILL the store opens its folder again and every acknowledged row is there."""
    store = Store(tmp_path)
    store.start()
    with store.client() as client:
        client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        for n in range(20):
            client.insert("t", [list(range(n * 100, n * 100 + 100))], ["a"], column_oriented=True)
    store.process.kill()
    store.process.wait()
    store.start()
    with store.client() as client:
        assert client.query("SELECT count(), uniqExact(a) FROM t").first_row == (2000, 2000)
    assert stop(store.process, LIMIT_S) == 0


def test_stops_cleanly_with_a_query_running(tmp_path: Path) -> None:
    """SIGTERM lets a running query finish and be answered."""
    store = Store(tmp_path)
    store.start()
    script = "import sys, httpx; print(httpx.post(sys.argv[1], content=b'SELECT sleep(3)', timeout=60).text)"
    argv = [sys.executable, "-c", script, f"http://127.0.0.1:{store.port}/"]
    with store.client() as client, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
        running = "SELECT countIf(query LIKE 'SELECT sleep%') FROM system.processes"
        assert wait_until(lambda: client.command(running) == 1, LIMIT_S)
        store.process.send_signal(signal.SIGTERM)
        assert asking.communicate(timeout=LIMIT_S)[0] == "0\n\n"
    assert store.process.wait(LIMIT_S) == 0


def test_second_store_on_one_folder(store: Store) -> None:
    """A second store on a folder says that another has it, and leaves that one alone."""
    argv = [sys.executable, "-m", "engine.dev.store", "--dir", str(store.folder), "--port", "0"]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert second.returncode == 1
    assert "another store has" in second.stderr
    assert store.answers()


def test_port_in_use(tmp_path: Path) -> None:
    """A taken port is named, with the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = [sys.executable, "-m", "engine.dev.store", "--dir", str(tmp_path), "--port", port]
        refused = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert refused.returncode == 1
    assert port in refused.stderr
    assert "--clickhouse-port" in refused.stderr


@pytest.mark.parametrize(
    ("text", "statement", "data"),
    [
        (
            b"INSERT INTO t (a) FORMAT CSV\n1\n",
            b"INSERT INTO t (a) FROM INFILE 'f'  FORMAT CSV",
            b"1\n",
        ),
        (
            b"-- c\n/* FORMAT x */ insert into `FORMAT a`.t SETTINGS a = 0 FORMAT Native\r\n\n\n",
            b"-- c\n/* FORMAT x */ insert into `FORMAT a`.t FROM INFILE 'f' SETTINGS a = 0 FORMAT Native",
            b"\n\n",
        ),
        (
            b'insert into t format JSONEachRow {"a":1}',
            b"insert into t FROM INFILE 'f'  FORMAT JSONEachRow",
            b'{"a":1}',
        ),
    ],
)
def test_insert_statements(text: bytes, statement: bytes, data: bytes) -> None:
    """The data of an insert begins after the format's name and a line end, whatever quotes say."""
    insert = insert_with_data(text)
    assert insert is not None
    assert (insert.from_file("f"), text[insert.data_at :]) == (statement, data)


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t VALUES (1)",
        b"INSERT INTO t SELECT 1 FORMAT Null",
        b"SELECT 'INSERT' FORMAT CSV",
        b"",
        b"--",
    ],
)
def test_statements_without_data(text: bytes) -> None:
    """Statements that hold their rows themselves are left as they are."""
    assert insert_with_data(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1", "CSV"),
        (b"(SELECT 1) FORMAT JSON;", "JSON"),
        (b"/* x */ with 1 as a select a\n FORMAT Native ", "Native"),
        (b"CREATE TABLE t (a UInt8) ENGINE = Memory", None),
        (b"", None),
    ],
)
def test_rows_format(text: bytes, expected: str | None) -> None:
    """The format named at the end wins over the default; what has no rows has no format."""
    assert rows_format(text, "CSV") == expected
