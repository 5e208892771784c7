"""Delivery history out of ClickHouse: by tenant and endpoint, and one message's story."""

from __future__ import annotations

from grafana.generate.model import Board, Panel, Row
from grafana.generate.pickers import ENDPOINTS, MESSAGE, TENANT
from grafana.generate.sql import (
    IN_TIME,
    OF_ENDPOINTS,
    OF_MESSAGE,
    OF_TENANT,
    TO_MESSAGE,
    Rollup,
    count_of,
    sql,
)

_ATTEMPTS = Rollup(OF_TENANT, OF_ENDPOINTS)
_CHOSEN = f"{IN_TIME} AND {OF_TENANT} AND {OF_ENDPOINTS}"
_TO_ENDPOINT = "/d/hooklog-endpoint?${__url_time_range}&var-endpoint=${__value.raw}"


_NOW = Row(
    "Do deliveries arrive?",
    (
        Panel(
            "stat",
            "Delivered of those that ended",
            "Of the deliveries of messages accepted in this time that have ended, the share that arrived,"
            " after however many attempts.",
            "percentunit",
            (
                sql(f"""
                SELECT countIf(status = 'delivered') / nullIf(countIf(status IN ('delivered', 'failed')), 0)
                       AS delivered
                FROM delivery_status
                WHERE {_CHOSEN}"""),
            ),
            width=4,
            base="red",
            steps=((0.95, "yellow"), (0.999, "green")),
        ),
        Panel(
            "stat",
            "Delivered",
            "Deliveries of messages accepted in this time that arrived.",
            "short",
            (count_of("delivered", _CHOSEN),),
            width=4,
        ),
        Panel(
            "stat",
            "Failed",
            "Deliveries of messages accepted in this time that were given up. They can be resent.",
            "short",
            (count_of("failed", _CHOSEN),),
            width=4,
            steps=((1, "red"),),
        ),
        Panel(
            "stat",
            "Pending",
            "Deliveries of messages accepted in this time that wait: for their turn, a retry, an endpoint.",
            "short",
            (count_of("pending", _CHOSEN),),
            width=4,
            steps=((1, "yellow"),),
        ),
        Panel(
            "stat",
            "Attempts that succeed",
            "Share of HTTP requests in this time that the receiver took, first tries and retries.",
            "percentunit",
            (_ATTEMPTS.success_share(),),
            width=4,
            base="red",
            steps=((0.5, "yellow"), (0.95, "green")),
        ),
        Panel(
            "stat",
            "Duration of a request, p99",
            "99 of 100 requests in this time were faster, from connecting to the end of the answer.",
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
            "HTTP requests by outcome, first tries and retries.",
            "short",
            (_ATTEMPTS.outcomes(),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Duration of a request",
            "Quantiles, from connecting to the end of the answer: within 1 %, from the rollups' states.",
            "ms",
            (_ATTEMPTS.durations(),),
        ),
        Panel(
            "graph",
            "Error classes",
            "Failed requests by class: http_… is the receiver's answer, the others mean there was none.",
            "short",
            (_ATTEMPTS.failures_in_time(),),
            stacked=True,
        ),
    ),
)

_TOP = Row(
    "Which endpoints",
    (
        Panel(
            "table",
            "Top failing endpoints",
            "The endpoints with most failed requests, with their success share and what fails most. Follow"
            " the endpoint to see why.",
            "short",
            (_ATTEMPTS.most_failing(),),
            width=12,
            columns={"succeeded": "percentunit", "last_success": "dateTimeFromNow"},
            links={"endpoint_id": _TO_ENDPOINT},
        ),
        Panel(
            "table",
            "Slowest endpoints",
            "The endpoints with the slowest requests at p99, of those with at least ten in this time.",
            "short",
            (_ATTEMPTS.slowest(),),
            width=12,
            columns={"p50": "ms", "p95": "ms", "p99": "ms"},
            links={"endpoint_id": _TO_ENDPOINT},
        ),
        Panel(
            "table",
            "Why deliveries fail",
            "Failed attempts by class and status, with how many endpoints have them: one endpoint is its own"
            " fault, many at once may be ours.",
            "short",
            (
                sql(f"""
                SELECT error_class, status_code, count() AS attempts, uniq(endpoint_id) AS endpoints,
                       anyLast(error) AS example
                FROM delivery_attempts
                WHERE {_CHOSEN} AND outcome != 'success'
                GROUP BY error_class, status_code ORDER BY attempts DESC LIMIT 20"""),
            ),
            width=12,
            columns={"status_code": "none"},
        ),
        Panel(
            "table",
            "By event type",
            "Deliveries of messages accepted in this time, and how long the first attempt took to begin.",
            "short",
            (
                sql(f"""
                SELECT event_type, uniq(message_id) AS messages, countIf(attempt = 1) AS deliveries,
                       quantileOrNullIf(0.99)(dateDiff('millisecond', accepted_at, attempted_at),
                                              attempt = 1 AND origin = '') AS p99_to_first
                FROM delivery_attempts
                WHERE {_CHOSEN}
                GROUP BY event_type ORDER BY deliveries DESC, event_type LIMIT 20"""),
            ),
            width=12,
            columns={"p99_to_first": "ms"},
        ),
    ),
)

_UNFINISHED = Row(
    "What did not arrive",
    (
        Panel(
            "table",
            "Failed deliveries",
            "The latest deliveries that were given up, with why. Follow the message to see each attempt.",
            "short",
            (
                sql(f"""
                SELECT updated_at AS given_up, tenant, endpoint_id, message_id, event_type, reason,
                       error_class, status_code, attempts
                FROM failed_deliveries
                WHERE {_CHOSEN}
                ORDER BY given_up DESC LIMIT 50"""),
            ),
            width=12,
            columns={"given_up": "dateTimeAsIso", "status_code": "none"},
            links={"endpoint_id": _TO_ENDPOINT, "message_id": TO_MESSAGE},
        ),
        Panel(
            "table",
            "Pending deliveries",
            "What waits, the oldest first, and when its next attempt is due; without a time it is parked"
            " behind its endpoint, or its turn has not come.",
            "short",
            (
                sql(f"""
                SELECT accepted_at AS accepted, tenant, endpoint_id, message_id, attempts, error_class,
                       next_attempt_at AS due
                FROM delivery_status
                WHERE {_CHOSEN} AND status = 'pending'
                ORDER BY accepted LIMIT 50"""),
            ),
            width=12,
            columns={"accepted": "dateTimeAsIso", "due": "dateTimeAsIso"},
            links={"endpoint_id": _TO_ENDPOINT, "message_id": TO_MESSAGE},
        ),
    ),
)

_STORY = Row(
    "One message's story (enter its id above)",
    (
        Panel(
            "table",
            "What happened to the message",
            "In order: accepted, then each attempt to each endpoint with the answer and what followed."
            " Empty until a message id is entered; of any time.",
            "short",
            (
                sql(f"""
                SELECT at, tenant, what, endpoint_id, answer, took, error, next_attempt FROM (
                    SELECT accepted_at AS at, tenant, '' AS endpoint_id, 0 AS answer, 0 AS took, '' AS error,
                           'accepted ' || event_type || ' for ' || toString(matched) || ' endpoints' AS what,
                           NULL AS next_attempt
                    FROM accepted_messages WHERE {OF_MESSAGE} AND {OF_TENANT}
                    UNION ALL
                    SELECT attempted_at, tenant, endpoint_id, status_code, duration_ms, error,
                           'attempt ' || toString(attempt) || ': ' || decision, next_attempt_at
                    FROM delivery_attempts WHERE {OF_MESSAGE} AND {OF_TENANT}
                ) ORDER BY at"""),
            ),
            width=16,
            columns={"at": "dateTimeAsIso", "answer": "none", "took": "ms", "next_attempt": "dateTimeAsIso"},
            links={"endpoint_id": _TO_ENDPOINT},
        ),
        Panel(
            "table",
            "Where it stands",
            "The current state of the message's deliveries, one an endpoint, and its resends and replays.",
            "short",
            (
                sql(f"""
                SELECT endpoint_id, status, reason, attempts, updated_at AS since, origin
                FROM delivery_status WHERE {OF_MESSAGE} AND {OF_TENANT}
                ORDER BY since"""),
            ),
            width=8,
            columns={"since": "dateTimeAsIso"},
            links={"endpoint_id": _TO_ENDPOINT},
        ),
    ),
)

_AUDIT = Row(
    "Who changed what",
    (
        Panel(
            "table",
            "Changes",
            "The latest changes of tenants, keys, endpoints, secrets, event types and replays, and who asked"
            " for them.",
            "short",
            (
                sql(f"""
                SELECT at, tenant, subject, subject_id, change, actor, details
                FROM audit_trail WHERE $__timeFilter(at) AND {OF_TENANT}
                ORDER BY at DESC LIMIT 100"""),
            ),
            width=24,
            columns={"at": "dateTimeAsIso"},
        ),
    ),
)

BOARD = Board(
    "hooklog-history",
    "hooklog: history",
    "What ClickHouse knows of messages, deliveries and attempts, by tenant and endpoint.",
    (_NOW, _IN_TIME, _TOP, _UNFINISHED, _STORY, _AUDIT),
    (TENANT, ENDPOINTS, MESSAGE),
    "now-24h",
)
