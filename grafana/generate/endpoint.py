"""One endpoint: does it take what it is sent, and if not, why."""

from __future__ import annotations

from grafana.generate.model import Board, Panel, Row
from grafana.generate.pickers import ENDPOINT, TENANT
from grafana.generate.sql import IN_TIME, OF_ENDPOINT, OF_TENANT, TO_MESSAGE, Rollup, count_of, sql

_ATTEMPTS = Rollup(OF_TENANT, OF_ENDPOINT)
_THIS = f"{IN_TIME} AND {OF_TENANT} AND {OF_ENDPOINT}"


_NOW = Row(
    "Does it take what it is sent?",
    (
        Panel(
            "stat",
            "Attempts that succeed",
            "Share of the requests to it in this time that it took.",
            "percentunit",
            (_ATTEMPTS.success_share(),),
            width=4,
            base="red",
            steps=((0.5, "yellow"), (0.95, "green")),
        ),
        Panel(
            "stat",
            "Since the last success",
            "How long ago it last took a message accepted in this time; nothing if it took none.",
            "s",
            (
                sql(f"""
                SELECT dateDiff('second', maxOrNullIf(attempted_at, outcome = 'success'), now64(3)) AS ago
                FROM delivery_attempts
                WHERE {_THIS}"""),
            ),
            width=4,
            steps=((3600, "yellow"), (86400, "red")),
        ),
        Panel(
            "stat",
            "Delivered",
            "Deliveries to it of messages accepted in this time that arrived.",
            "short",
            (count_of("delivered", _THIS),),
            width=4,
        ),
        Panel(
            "stat",
            "Failed",
            "Deliveries to it that were given up. They can be resent once it is well.",
            "short",
            (count_of("failed", _THIS),),
            width=4,
            steps=((1, "red"),),
        ),
        Panel(
            "stat",
            "Pending",
            "Deliveries that wait for it: for a retry, or parked until it answers again.",
            "short",
            (count_of("pending", _THIS),),
            width=4,
            steps=((1, "yellow"), (1000, "red")),
        ),
        Panel(
            "stat",
            "Duration of a request, p99",
            "99 of 100 of its requests were faster. Near its timeout, it does too much before it answers.",
            "ms",
            (_ATTEMPTS.p99(),),
            width=4,
            steps=((5000, "yellow"), (15000, "red")),
        ),
    ),
)

_IN_TIME = Row(
    "In time",
    (
        Panel(
            "graph",
            "Attempts",
            "HTTP requests to it by outcome, first tries and retries.",
            "short",
            (_ATTEMPTS.outcomes(),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Duration of a request",
            "Quantiles of its requests, from connecting to the end of the answer.",
            "ms",
            (_ATTEMPTS.durations(),),
        ),
        Panel(
            "graph",
            "From acceptance to first attempt",
            "Quantiles by time of acceptance, with what its own rate limit, circuit or parked lane added.",
            "ms",
            (
                sql(f"""
                SELECT $__timeInterval(accepted_at) AS time, quantile(0.5)(waited) AS p50,
                       quantile(0.99)(waited) AS p99
                FROM (
                    SELECT accepted_at, dateDiff('millisecond', accepted_at, attempted_at) AS waited
                    FROM delivery_attempts
                    WHERE {_THIS} AND attempt = 1 AND origin = ''
                ) GROUP BY time ORDER BY time"""),
            ),
        ),
    ),
)

_WHY = Row(
    "Why not",
    (
        Panel(
            "bars",
            "Failures by class",
            "Failed requests in this time. dns, connect, tls, timeout: nothing answers; http_4xx: it refuses,"
            " often a signature or a path; http_5xx: it breaks.",
            "short",
            (_ATTEMPTS.failures(),),
        ),
        Panel(
            "bars",
            "Tries until delivered",
            "Deliveries of messages accepted in this time that arrived, by the number of attempts they took.",
            "short",
            (
                sql(f"""
                SELECT toString(attempts) || if(attempts = 1, ' attempt', ' attempts') AS tries,
                       count() AS deliveries
                FROM delivery_status
                WHERE {_THIS} AND status = 'delivered'
                GROUP BY attempts ORDER BY attempts LIMIT 20"""),
            ),
            base="blue",
        ),
        Panel(
            "bars",
            "Deliveries by state",
            "Deliveries of messages accepted in this time: delivered, failed, pending, skipped and why.",
            "short",
            (
                sql(f"""
                SELECT if(reason = '', status, status || ': ' || reason) AS state, count() AS deliveries
                FROM delivery_status
                WHERE {_THIS}
                GROUP BY state ORDER BY deliveries DESC"""),
            ),
            base="blue",
        ),
    ),
)

_DETAILS = Row(
    "In detail",
    (
        Panel(
            "table",
            "Latest attempts",
            "The last requests to it, with its answers. Follow the message for its whole story.",
            "short",
            (
                sql(f"""
                SELECT attempted_at AS at, message_id, event_type, attempt, outcome, status_code AS answer,
                       error_class, error, duration_ms AS took, next_attempt_at AS next_attempt,
                       substringUTF8(response_body, 1, 200) AS said
                FROM delivery_attempts
                WHERE {_THIS}
                ORDER BY at DESC LIMIT 50"""),
            ),
            width=16,
            columns={"at": "dateTimeAsIso", "answer": "none", "took": "ms", "next_attempt": "dateTimeAsIso"},
            links={"message_id": TO_MESSAGE},
        ),
        Panel(
            "table",
            "Who changed it",
            "Changes of this endpoint: created, disabled, secret rotated, of any time, and by whom.",
            "short",
            (
                sql(f"""
                SELECT at, change, actor, details FROM audit_trail
                WHERE subject = 'endpoint' AND subject_id = ${{endpoint:singlequote}} AND {OF_TENANT}
                ORDER BY at DESC LIMIT 50"""),
            ),
            width=8,
            columns={"at": "dateTimeAsIso"},
        ),
    ),
)

BOARD = Board(
    "hooklog-endpoint",
    "hooklog: endpoint",
    "One endpoint: does it take what it is sent, how fast, and if not, why.",
    (_NOW, _IN_TIME, _WHY, _DETAILS),
    (TENANT, ENDPOINT),
    "now-24h",
)
