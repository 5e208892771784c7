"""How deliveries go: rates, latency, retries, lanes and circuits."""

from __future__ import annotations

from grafana.generate.model import Board, Panel, Prom, Row
from grafana.generate.pickers import JOB
from grafana.generate.promql import or_zero, quantile, rate, ratio, total, worst

_ATTEMPTS = "hooklog_attempts_total"
_QUANTILES = (0.5, 0.95, 0.99)


def _quantiles(metric: str) -> tuple[Prom, ...]:
    return tuple(Prom(quantile(q, metric), f"p{q * 100:g}") for q in _QUANTILES)


_NOW = Row(
    "Is delivery working?",
    (
        Panel(
            "stat",
            "Attempts",
            "HTTP requests a second, first tries and retries.",
            "reqps",
            (Prom(or_zero(rate(_ATTEMPTS))),),
            width=4,
            base="blue",
        ),
        Panel(
            "stat",
            "Attempts that succeed",
            "Share of attempts that the receiver took. It falls when receivers fail; that alone pages"
            " nobody.",
            "percentunit",
            (Prom(ratio(rate(_ATTEMPTS, where='outcome="success"'), rate(_ATTEMPTS))),),
            width=4,
            base="red",
            steps=((0.5, "yellow"), (0.95, "green")),
        ),
        Panel(
            "stat",
            "Accepted to attempted, p99",
            "Time between acceptance of a message and its first attempt, without what the endpoint held up.",
            "s",
            (Prom(quantile(0.99, "hooklog_first_attempt_own_latency_seconds")),),
            width=4,
            steps=((5, "yellow"), (30, "red")),
        ),
        Panel(
            "stat",
            "Retries overdue",
            "Retries that are due and still on their delay topic. More than a few: the scheduler is behind.",
            "short",
            (Prom(total("hooklog_retries_overdue")),),
            width=4,
            steps=((1, "yellow"), (1000, "red")),
        ),
        Panel(
            "stat",
            "Places taken",
            "Requests in flight of those that may be at a time. Near 1 add dispatchers.",
            "percentunit",
            (Prom(ratio(total("hooklog_requests_in_flight"), total("hooklog_request_places"))),),
            width=4,
            steps=((0.7, "yellow"), (0.9, "red")),
        ),
        Panel(
            "stat",
            "Lanes parked",
            "Endpoints whose backlog waits on the log, because they do not answer or take it slowly. Each"
            " costs a cursor, and delays nobody else.",
            "short",
            (Prom(total("hooklog_lanes_parked")),),
            width=4,
            steps=((1, "yellow"),),
        ),
    ),
)

_RATES = Row(
    "Rates",
    (
        Panel(
            "graph",
            "Attempts by outcome",
            "HTTP requests a second that succeeded and failed.",
            "reqps",
            (Prom(or_zero(rate(_ATTEMPTS, "outcome")), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Attempts by trigger",
            "Requests a second by what asked for them: the schedule, a resend, a replay, a test.",
            "reqps",
            (Prom(or_zero(rate(_ATTEMPTS, "trigger")), "{{trigger}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "What followed",
            "What was decided after attempts: delivered, retry, failed or skipped.",
            "ops",
            (Prom(or_zero(rate("hooklog_decisions_total", "decision")), "{{decision}}"),),
            stacked=True,
        ),
    ),
)

_LATENCY = Row(
    "Latency",
    (
        Panel(
            "graph",
            "Accepted to first attempt, ours",
            "Time until the first attempt, without what the endpoint's circuit, rate limit, cap or parked"
            " lane added. The line is the SLO's 30 s.",
            "s",
            _quantiles("hooklog_first_attempt_own_latency_seconds"),
            steps=((30, "red"),),
        ),
        Panel(
            "graph",
            "Accepted to first attempt, in all",
            "The same with what endpoints held up themselves: what receivers see.",
            "s",
            _quantiles("hooklog_first_attempt_latency_seconds"),
        ),
        Panel(
            "graph",
            "Duration of a request",
            "From connecting to the end of the answer: how fast receivers are.",
            "s",
            _quantiles("hooklog_attempt_duration_seconds"),
        ),
    ),
)

_RETRIES = Row(
    "Retries and tiers",
    (
        Panel(
            "graph",
            "Retries put on a tier",
            "Records a second put on each delay topic. A long wait hops over several.",
            "ops",
            (Prom(or_zero(rate("hooklog_retries_scheduled_total", "tier")), "{{tier}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Put on deliveries",
            "Deliveries a second that dispatchers get to attempt: first tries, and retries that became due.",
            "ops",
            (
                Prom(rate("hooklog_deliveries_scheduled_total"), "first tries"),
                Prom(rate("hooklog_retries_released_total"), "retries"),
            ),
            stacked=True,
        ),
        Panel(
            "graph",
            "Late by",
            "From a retry's due time to its release. Never early; 1 s late at p99 is the aim.",
            "s",
            tuple(
                Prom(or_zero(quantile(q, "hooklog_retry_lateness_seconds")), f"p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
            steps=((1, "yellow"), (10, "red")),
        ),
    ),
)

_LANES = Row(
    "Lanes and circuits",
    (
        Panel(
            "graph",
            "Circuits that are not closed",
            "Endpoints to which no request goes for now (open), or a single one as a probe (half_open).",
            "short",
            (Prom(or_zero(total("hooklog_circuits", "state")), "{{state}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Parked lanes",
            "Endpoints whose backlog waits on the log behind a cursor.",
            "short",
            (Prom(total("hooklog_lanes_parked"), "parked"),),
            width=6,
        ),
        Panel(
            "graph",
            "Passed over and drained",
            "Deliveries a second left on the log for parked lanes, and read again when the lane takes them."
            " Passed over for hours without draining: an endpoint is dead.",
            "ops",
            (
                Prom(rate("hooklog_deliveries_passed_over_total"), "passed over"),
                Prom(rate("hooklog_deliveries_drained_total"), "drained"),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "In the dispatchers",
            "Requests in flight, the places for them, and deliveries taken in that wait for their lane.",
            "short",
            (
                Prom(total("hooklog_requests_in_flight"), "in flight"),
                Prom(total("hooklog_request_places"), "places"),
                Prom(total("hooklog_deliveries_waiting"), "waiting"),
            ),
            width=6,
        ),
    ),
)

_FAILURES = Row(
    "Failures",
    (
        Panel(
            "graph",
            "Failures by class",
            "Failed requests a second by error class.",
            "reqps",
            (Prom(or_zero(rate(_ATTEMPTS, "error_class", 'outcome="failure"')), "{{error_class}}"),),
            width=6,
            stacked=True,
        ),
        Panel(
            "graph",
            "Blocked by the egress rules",
            "Requests a second to addresses that are not allowed: a customer's mistake, or somebody who"
            " probes our network.",
            "reqps",
            (Prom(or_zero(rate(_ATTEMPTS, where='error_class="blocked"')), "blocked"),),
            width=6,
            steps=((1, "yellow"),),
        ),
        Panel(
            "graph",
            "Given up",
            "Deliveries a second that ended as dead letters, those that waited too long in a lane, and what"
            " retention took from behind a parked lane.",
            "ops",
            (
                Prom(rate("hooklog_dead_letters_total"), "dead letters"),
                Prom(or_zero(rate("hooklog_deliveries_expired_total", "reason")), "{{reason}}"),
                Prom(rate("hooklog_lanes_trimmed_records_total"), "trimmed"),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "Replays",
            "Replays under way, and the deliveries a second that they make.",
            "short",
            (
                Prom(total("hooklog_replays_running"), "running"),
                Prom(rate("hooklog_deliveries_replayed_total"), "deliveries a second"),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "View of endpoints",
            "For how long a dispatcher's view of endpoints is not known to be complete. A stale one signs"
            " nothing, so deliveries wait.",
            "s",
            (Prom(worst("hooklog_view_age_seconds"), "oldest"),),
            width=12,
            steps=((5, "yellow"), (30, "red")),
        ),
        Panel(
            "graph",
            "Secrets that do not open",
            "Secrets and data keys a second that no master key of the process opens: a wrong or lost master"
            " key. Deliveries that need them are not signed, so not sent.",
            "ops",
            (Prom(or_zero(rate("hooklog_decrypt_failures_total", "sealed")), "{{sealed}}"),),
            width=12,
            steps=((0.001, "red"),),
        ),
    ),
)

BOARD = Board(
    "hooklog-delivery",
    "hooklog: delivery",
    "Rates, latency, retries, tiers, lanes and circuits over all endpoints. One endpoint: see Endpoint.",
    (_NOW, _RATES, _LATENCY, _RETRIES, _LANES, _FAILURES),
    (JOB,),
)
