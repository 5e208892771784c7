"""Structured logs and Prometheus metrics. Every metric's name and help text is in this file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import BinaryIO, Literal, cast

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from structlog.typing import FilteringBoundLogger

Level = Literal["debug", "info", "warning", "error"]

cast("Callable[[], None]", disable_created_metrics)()  # a series more for each counter, which nobody asks

ATTEMPTS = Counter("hooklog_attempts", "Attempts made.", ["outcome", "error_class", "trigger"])
ATTEMPT_SECONDS = Histogram(
    "hooklog_attempt_duration_seconds",
    "Duration of one HTTP request, connect to end of answer.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
)
SLO_SECONDS = 30
"""99.9 % of first attempts begin so soon after acceptance: an edge of both histograms below."""
_SINCE_ACCEPTED = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, SLO_SECONDS, 60, 120, 300)
FIRST_ATTEMPT_SECONDS = Histogram(
    "hooklog_first_attempt_latency_seconds",
    "From the broker's acceptance of a message to the start of its first attempt.",
    buckets=_SINCE_ACCEPTED,
)
FIRST_ATTEMPT_OWN_SECONDS = Histogram(
    "hooklog_first_attempt_own_latency_seconds",
    "The same without the time for which the endpoint's own circuit, rate limit, cap or parked lane held it.",
    buckets=_SINCE_ACCEPTED,
)
UNJUDGED = Counter(
    "hooklog_answers_unjudged", "Answers that judging broke on, a defect of ours; recorded as failures."
)
IN_FLIGHT = Gauge("hooklog_requests_in_flight", "HTTP requests in flight.")
PLACES = Gauge("hooklog_request_places", "How many HTTP requests may be in flight at a time.")
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
HEADERS_UNREADABLE = Counter(
    "hooklog_headers_unreadable", "Records whose headers count for nothing: the name of one is not UTF-8."
)
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
RETRIES_OVERDUE = Gauge(
    "hooklog_retries_overdue", "Retries read from a delay topic that are due and not released."
)
RETRY_OVERDUE_SECONDS = Gauge(
    "hooklog_oldest_overdue_retry_seconds",
    "For how long the oldest overdue retry has been due; 0 if none is.",
)
DEAD_LETTERS = Counter("hooklog_dead_letters", "Deliveries that ended failed.")
REPLAYED = Counter("hooklog_deliveries_replayed", "Deliveries that replays made.")
REPLAYS_RUNNING = Gauge("hooklog_replays_running", "Replays under way.")
COPIES_DROPPED = Counter("hooklog_copies_dropped", "Copies of a record that were dropped.", ["group"])
COMMANDS = Counter("hooklog_commands", "Commands decided, by result.", ["result"])
REBALANCES = Counter("hooklog_rebalances", "Partitions assigned, revoked or lost.", ["group", "event"])
READ_BACK = Counter("hooklog_read_back_records", "Own outputs read back on assignment.", ["group"])
OWNED = Gauge("hooklog_partitions_owned", "Partitions owned.", ["group"])
LAG_SECONDS = Gauge(
    "hooklog_lag_seconds",
    "Age of the oldest record that a group has not done; what waits on a delay topic has its own metric.",
    ["group", "topic"],
)
WINDOW_FILL = Gauge(
    "hooklog_window_fill_ratio",
    "Share of a group's places for records taken in that are taken; at 1 it takes in no more.",
    ["group"],
)
WINDOW = Gauge("hooklog_inputs_open", "Records taken in whose outputs are not all acknowledged.", ["group"])
BROKER_UP = Gauge("hooklog_broker_up", "1 while a Kafka broker answers this process.", ["process"])
COMMIT_AGE = Gauge("hooklog_commit_age_seconds", "How long commits have not been acknowledged.", ["group"])
OUTPUT_AGE = Gauge("hooklog_output_age_seconds", "How long outputs have not been acknowledged.", ["process"])
POLL_AGE = Gauge("hooklog_poll_age_seconds", "Since a group's member last polled.", ["group"])
VIEW_AGE = Gauge(
    "hooklog_view_age_seconds",
    "For how long the dispatcher's view of endpoints is not known to be complete; a stale one signs nothing.",
)
DECRYPT_FAILURES = Counter(
    "hooklog_decrypt_failures", "Secrets and data keys that no master key of this process opens.", ["sealed"]
)
KAFKA_ERRORS = Counter("hooklog_kafka_errors", "What Kafka clients ran into, by librdkafka's name.", ["code"])
KAFKA_ROUND_TRIP = Gauge(
    "hooklog_kafka_round_trip_seconds",
    "How long a broker took to acknowledge a group's last commit.",
    ["group"],
)
KAFKA_QUEUED = Gauge(
    "hooklog_kafka_queued_records", "Records in the client library that no broker has acknowledged."
)
KAFKA_SENT = Counter("hooklog_kafka_sent_bytes", "Bytes that a group's member sent to brokers.", ["group"])
KAFKA_RECEIVED = Counter(
    "hooklog_kafka_received_bytes", "Bytes that a group's member received from brokers.", ["group"]
)
KAFKA_TIMEOUTS = Counter(
    "hooklog_kafka_request_timeouts", "Requests of a group's member that a broker let time out.", ["group"]
)
PROJECTOR_ROWS = Counter("hooklog_projector_rows", "Rows written to ClickHouse.", ["table"])
PROJECTOR_ERRORS = Counter("hooklog_projector_errors", "Writes to ClickHouse that failed and were retried.")
PROJECTOR_INSERTED = Gauge(
    "hooklog_projector_last_insert_timestamp_seconds",
    "When the projector last wrote to ClickHouse, seconds since 1970 UTC.",
)
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
ENDPOINTS_FAILING = Gauge(
    "hooklog_endpoints_failing",
    "Endpoints that failed since their last success, by what was done: nothing yet, warned, disabled.",
    ["state"],
)
NOTIFICATIONS = Counter(
    "hooklog_notifications",
    "Notifications of people, by kind and by what became of them.",
    ["kind", "result"],
)
MAILS_WAITING = Gauge(
    "hooklog_mails_waiting", "Notices taken in whose mail the mail server has not taken yet."
)
MAIL_ERRORS = Counter(
    "hooklog_mail_errors", "Mails that the mail server did not take and that are tried again."
)
API_REQUESTS = Counter(
    "hooklog_api_requests",
    "Requests that the API answered, by route and status class.",
    ["method", "route", "status"],
)
API_SECONDS = Histogram(
    "hooklog_api_request_duration_seconds",
    "From the head of a request to the head of the API's answer.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
STACK = CollectorRegistry()
"""What the process says that serves the metrics of several (HOOKLOG_METRICS_OF)."""
PROGRAM_UP = Gauge(
    "hooklog_program_up",
    "1 if a program of the stack answered when it was asked for its metrics.",
    ["program"],
    registry=STACK,
)


class _StandardError:
    """Standard error as it is when something is written: loggers outlive whoever replaces it for a while."""

    def write(self, line: bytes) -> int:
        """Pass it on."""
        return sys.stderr.buffer.write(line)

    def flush(self) -> None:
        """Pass it on."""
        sys.stderr.buffer.flush()


@cache
def of(counter: Counter, *labels: str) -> Counter:
    """`counter.labels(…)`, kept: for what is counted with each delivery, where looking it up costs most."""
    return counter.labels(*labels)


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
        logger_factory=structlog.BytesLoggerFactory(file=cast("BinaryIO", _StandardError())),
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
