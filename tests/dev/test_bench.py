"""The benchmark's arithmetic and its receiver."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from engine.dev.bench.figures import Figures, medians, quantile, summarize, throughput
from engine.dev.bench.processes import Usage, cpu_between, snapshot, trends
from engine.dev.bench.publisher import PAYLOAD_BYTES, make_payload, message_id, number_of
from engine.dev.bench.receiver import Connection, Note

MS = 1_000_000


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_quantile_is_a_measured_value(q: float, expected: int) -> None:
    """Nearest rank: nothing is interpolated."""
    assert quantile(range(1, 101), q) == expected
    assert quantile([], q) == 0


def test_throughput_leaves_out_the_first_tenth() -> None:
    """A slow start does not count, gaps between requests do."""
    slow_start = [0, 10_000 * MS]
    steady = [11_000 * MS + n * MS for n in range(18)]
    assert throughput(slow_start + steady) == pytest.approx(1000)
    assert throughput([1]) == 0


def test_a_run_is_summarized() -> None:
    """Latency from the producer's call to each request; what lacks and what came too often is counted."""
    sent = [0, 10 * MS, 20 * MS]
    arrived = [(2 * MS, 0), (3 * MS, 0), (14 * MS, 1), (15 * MS, 1), (16 * MS, 1)]
    figures = summarize(sent, arrived, fan_out=2)
    assert (figures.deliveries, figures.missing, figures.duplicates) == (5, 2, 1)
    assert (figures.p50, figures.p99, figures.largest) == (4, 6, 6)


def test_medians_hide_no_loss() -> None:
    """Figures are medians, but what was lost in any run is in the sum."""
    runs = [Figures(10, n, 0, 100 * n, n, n, n, n, cpu_us={"router": n}) for n in (0, 1, 5)]
    merged = medians(runs)
    assert (merged.missing, merged.per_second, merged.p50, merged.cpu_us) == (6, 100, 1, {"router": 1})


def test_payloads_are_600_bytes_of_json_and_distinct() -> None:
    """Compression and caches get no help."""
    payloads = [make_payload("run1", number) for number in range(50)]
    assert {len(payload) for payload in payloads} == {PAYLOAD_BYTES}
    assert [json.loads(payload)["number"] for payload in payloads] == list(range(50))


def test_a_message_id_names_its_run_and_number() -> None:
    """Notes of another run, or of wrk, are left out."""
    assert number_of("run1", message_id("run1", 42)) == 42
    assert number_of("run2", message_id("run1", 42)) is None
    assert number_of("run1", "") is None


def test_our_own_usage_can_be_read() -> None:
    """CPU and memory come from /proc; CPU goes up when we work."""
    before = snapshot(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = snapshot(os.getpid())
    assert cpu_between(before, after)["(bench)"] >= 0.03
    assert after["(bench)"].rss > 10 << 20


def test_memory_trends_compare_the_first_and_last_tenth() -> None:
    """Growth is given for ten minutes; a process that was not there all the time has no trend."""
    usage = [{"router": Usage(0, (100 + n) << 20)} for n in range(11)]
    samples = [(60.0 * n, one) for n, one in enumerate(usage)]
    trend = trends(samples)["router"]
    assert (trend.first_mb, trend.last_mb, trend.largest_mb, trend.growth_mb) == (100, 110, 110, 10)
    assert trends([*samples, (700.0, {})]) == {}


async def _exchange(parts: list[bytes], wanted: bytes) -> tuple[bytes, list[Note]]:
    """Send bytes in parts to a receiver and read its answer until it ends as wanted."""
    notes: list[Note] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(notes, set()), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(wanted), 5)
        writer.close()
        await writer.wait_closed()
    return answer, notes


POST = b"POST /x HTTP/1.1\r\nHost: a\r\nWebhook-Id: m%d\r\nContent-Length: 4\r\n\r\nbody"


def test_the_receiver_notes_every_request() -> None:
    """Pipelined or cut anywhere, each request is answered and noted once, in order."""
    stream = POST % 1 + POST % 2 + POST % 3
    for cut in (1, 40, 75, 80, len(stream) - 1):
        parts = [stream[:cut], stream[cut:], b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n"]
        answer, notes = asyncio.run(_exchange(parts, b"\r\n\r\n3"))
        assert answer.count(b"HTTP/1.1 204 ") == 3
        assert [name for _, name in notes] == [b"m1", b"m2", b"m3"]


def test_the_receiver_hands_over_its_notes() -> None:
    """Nanoseconds and id, a line each, and they are forgotten."""
    before = time.time_ns()
    answer, notes = asyncio.run(_exchange([POST % 7, b"GET /notes HTTP/1.1\r\n\r\n"], b" m7\n"))
    at = int(answer.rpartition(b"\r\n\r\n")[2].split()[0])
    assert before <= at <= time.time_ns()
    assert notes == []
