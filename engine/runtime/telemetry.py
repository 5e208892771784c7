"""Structured logs and Prometheus metrics. Every metric's name and help text is in this file."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import FilteringBoundLogger

Level = Literal["debug", "info", "warning", "error"]

ATTEMPTS = Counter("hooklog_attempts", "Attempts made.", ["outcome", "error_class", "trigger"])
ATTEMPT_SECONDS = Histogram(
    "hooklog_attempt_duration_seconds",
    "Duration of one HTTP request, connect to end of answer.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)
FIRST_ATTEMPT_SECONDS = Histogram(
    "hooklog_first_attempt_latency_seconds",
    "From the broker's acceptance of a message to the start of its first attempt.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300),
)
IN_FLIGHT = Gauge("hooklog_requests_in_flight", "HTTP requests in flight.")
WAITING = Gauge("hooklog_deliveries_waiting", "Deliveries taken in by a dispatcher and not yet attempted.")
LANES_PARKED = Gauge("hooklog_lanes_parked", "Endpoints whose backlog waits on the log.")
LANES_TRIMMED = Counter(
    "hooklog_lanes_trimmed_records", "Offsets behind a parked lane's cursor that retention took."
)
DRAINED = Counter("hooklog_deliveries_drained", "Deliveries of parked lanes read again from the log.")
PASSED_OVER = Counter("hooklog_deliveries_passed_over", "Deliveries left on the log for a parked lane.")
CIRCUITS = Gauge("hooklog_circuits", "Circuits of endpoints that are not closed, by state.", ["state"])
EXPIRED = Counter("hooklog_deliveries_expired", "Deliveries that waited too long in a lane.", ["reason"])
DECISIONS = Counter("hooklog_decisions", "What followed attempts.", ["decision"])
MESSAGES_ROUTED = Counter("hooklog_messages_routed", "Messages routed, by verdict.", ["verdict"])
DELIVERIES_SCHEDULED = Counter("hooklog_deliveries_scheduled", "Deliveries made from messages.")
INVALID_RECORDS = Counter("hooklog_invalid_records", "Records refused, by reason.", ["reason"])
UNKNOWN_SCHEMA = Counter(
    "hooklog_unknown_schema_records", "Records of a newer hooklog that a group waits before.", ["group"]
)
RETRIES_SCHEDULED = Counter("hooklog_retries_scheduled", "Retries put on a delay topic.", ["tier"])
RETRIES_RELEASED = Counter("hooklog_retries_released", "Retries that became due.")
RETRY_LATENESS_SECONDS = Histogram(
    "hooklog_retry_lateness_seconds",
    "From the due time of a retry to its release.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
DEAD_LETTERS = Counter("hooklog_dead_letters", "Deliveries that ended failed.")
COPIES_DROPPED = Counter("hooklog_copies_dropped", "Copies of a record that were dropped.", ["group"])
COMMANDS = Counter("hooklog_commands", "Commands decided, by result.", ["result"])
REBALANCES = Counter("hooklog_rebalances", "Partitions assigned, revoked or lost.", ["group", "event"])
READ_BACK = Counter("hooklog_read_back_records", "Own outputs read back on assignment.", ["group"])
OWNED = Gauge("hooklog_partitions_owned", "Partitions owned.", ["group"])
WINDOW = Gauge("hooklog_inputs_open", "Records taken in whose outputs are not all acknowledged.", ["group"])
BROKER_UP = Gauge("hooklog_broker_up", "1 while a Kafka broker answers this process.", ["process"])
COMMIT_AGE = Gauge("hooklog_commit_age_seconds", "How long commits have not been acknowledged.", ["group"])
OUTPUT_AGE = Gauge("hooklog_output_age_seconds", "How long outputs have not been acknowledged.", ["process"])
POLL_AGE = Gauge("hooklog_poll_age_seconds", "Since a group's member last polled.", ["group"])
KAFKA_ERRORS = Counter("hooklog_kafka_errors", "What Kafka clients ran into, by librdkafka's name.", ["code"])
PROJECTOR_ROWS = Counter("hooklog_projector_rows", "Rows written to ClickHouse.", ["table"])
PROJECTOR_ERRORS = Counter("hooklog_projector_errors", "Writes to ClickHouse that failed and were retried.")
PROJECTION_DELAY = Gauge(
    "hooklog_projection_delay_seconds",
    "Age of the oldest record that the projector has read and not yet written to ClickHouse.",
)


UNACCOUNTED = Gauge(
    "hooklog_unaccounted",
    "Deliveries, messages and rows that are not where they must be, by problem, as of the last check.",
    ["problem"],
)
ACCOUNTING_CHECKED = Gauge(
    "hooklog_accounting_checked_timestamp_seconds",
    "When the accounting was last checked whole, the log and ClickHouse, seconds since 1970 UTC.",
)
PENDING = Gauge("hooklog_deliveries_pending", "Deliveries that are neither delivered nor ended.", ["state"])


def configure(level: Level = "info") -> None:
    """Write JSON lines to standard error from `level` on; call once a process."""
    global _level  # noqa: PLW0603  a process has one log
    _level = getattr(logging, level.upper())
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_serialize),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
    )


_attempt_lines: list[bytes] = []
_level = logging.INFO


def attempt_line(**fields: object) -> None:
    """Queue the log line of one attempt; whole batches are written, since a write each would cost more."""
    if _level <= logging.INFO:
        now = datetime.fromtimestamp(time.time(), UTC)
        line = {"event": "delivery.attempted", **fields, "level": "info", "timestamp": now}
        _attempt_lines.append(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))


def flush_attempt_lines() -> None:
    """Write the lines that are queued."""
    if _attempt_lines:
        sys.stderr.buffer.write(b"".join(_attempt_lines))
        sys.stderr.buffer.flush()
        _attempt_lines.clear()


def _serialize(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=str)


def logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose lines carry `source=name`."""
    bound: FilteringBoundLogger = structlog.get_logger(source=name)
    return bound
