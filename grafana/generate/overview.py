"""Is it working? What an SRE opens first, and what hangs on the wall."""

from __future__ import annotations

from grafana.generate.model import Board, Panel, Prom, Row
from grafana.generate.pickers import JOB
from grafana.generate.promql import or_zero, quantile, rate, ratio, series, total, worst

_TOLERATED = 0.001
"""The SLO: 99.9 % of first attempts begin within 30 s of acceptance."""
_UNREAD = series("hooklog_lag_seconds", 'group="projector"')
_UP = ("up", "hooklog_program_up")
_LATENCY = "hooklog_first_attempt_own_latency_seconds"


def _late(window: str) -> str:
    """The share of first attempts that began late, over a window, by nobody's fault but ours."""
    on_time = series(f"{_LATENCY}_bucket", 'le="30.0"')
    soon = f"sum (increase({on_time}[{window}]))"
    every = f"sum (increase({series(f'{_LATENCY}_count')}[{window}]))"
    return ratio(f"{every} - {soon}", every)


def _budget(window: str) -> str:
    return f"1 - ({_late(window)}) / {_TOLERATED}"


def _burn(window: str) -> str:
    return f"{worst(f'hooklog:first_attempts_late:ratio_rate{window}')} / {_TOLERATED}"


_IS_IT_WORKING = Row(
    "Is it working?",
    (
        Panel(
            "stat",
            "First attempts on time",
            "Share of first attempts in the last hour that began within 30 s of acceptance, not counting the"
            " time for which an endpoint's own circuit, rate limit or parked lane held them. The SLO is 99.9"
            " %.",
            "percentunit",
            (Prom(f"1 - ({_late('1h')})"),),
            width=4,
            base="red",
            steps=((0.99, "yellow"), (0.999, "green")),
        ),
        Panel(
            "stat",
            "Error budget left, 30 days",
            "What is left of the 0.1 % of first attempts that may be late in 30 days. At 0 the SLO is broken:"
            " stop changing things.",
            "percentunit",
            (Prom(_budget("30d")),),
            width=4,
            base="red",
            steps=((0.0001, "yellow"), (0.25, "green")),
        ),
        Panel(
            "stat",
            "Deliveries succeeding",
            "Attempts a second that receivers took. 0 while messages arrive means that delivery has stopped.",
            "ops",
            (Prom(or_zero(rate("hooklog_attempts_total", where='outcome="success"'))),),
            width=4,
            base="blue",
        ),
        Panel(
            "stat",
            "Processes down",
            "Processes of hooklog that Prometheus, or in `hooklog dev` the API, gets no metrics from now.",
            "short",
            (Prom(" + ".join(f"({or_zero(f'count ({series(name)} == 0)')})" for name in _UP)),),
            width=4,
            steps=((1, "red"),),
        ),
        Panel(
            "stat",
            "Unaccounted",
            "Deliveries, messages and rows that are not where they must be, as of the last check of the log"
            " against ClickHouse. Anything but 0 is a defect of ours.",
            "short",
            (Prom(or_zero(f"sum ({worst('hooklog_unaccounted', 'problem')})")),),
            width=4,
            steps=((1, "red"),),
        ),
        Panel(
            "stat",
            "ClickHouse behind",
            "Age of the oldest record that is not in ClickHouse yet, read by the projector or not.",
            "s",
            (Prom(f"max ({series('hooklog_projection_delay_seconds')} or {_UNREAD})"),),
            width=4,
            steps=((10, "yellow"), (300, "red")),
        ),
    ),
)

_IN_AND_OUT = Row(
    "What comes in and what goes out",
    (
        Panel(
            "graph",
            "Messages routed",
            "Messages a second by what the router found: endpoints that match, none, a duplicate.",
            "cps",
            (Prom(or_zero(rate("hooklog_messages_routed_total", "verdict")), "{{verdict}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Attempts",
            "HTTP requests a second by outcome. Failures are retried; whose fault they are is on the right.",
            "reqps",
            (Prom(or_zero(rate("hooklog_attempts_total", "outcome")), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Why attempts fail",
            "Failed requests a second by class. http_… is the receiver's answer; much dns, connect or tls"
            " over many endpoints at once is our own network.",
            "reqps",
            (
                Prom(
                    or_zero(rate("hooklog_attempts_total", "error_class", 'outcome="failure"')),
                    "{{error_class}}",
                ),
            ),
            stacked=True,
        ),
    ),
)

_SLO = Row(
    "The promise: 99.9 % of first attempts within 30 s",
    (
        Panel(
            "graph",
            "From acceptance to first attempt",
            "Quantiles of the time between the broker's acceptance of a message and the start of its first"
            " attempt, without what the endpoint itself held up. The line is the SLO's 30 s.",
            "s",
            tuple(Prom(quantile(q, _LATENCY), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
            steps=((30, "red"),),
        ),
        Panel(
            "graph",
            "Error budget burn",
            "How many times faster than allowed the budget of 30 days is used up. Above 14.4 over one hour"
            " somebody is paged, above 6 over six hours too; above 1 over three days it will not last.",
            "none",
            tuple(Prom(_burn(window), window) for window in ("1h", "6h", "3d")),
            steps=((6, "yellow"), (14.4, "red")),
        ),
        Panel(
            "graph",
            "Deliveries pending",
            "Deliveries that are neither delivered nor ended: waiting for their turn, for a retry, or parked"
            " behind an endpoint that does not answer. It rises with every endpoint that is down.",
            "short",
            (Prom(or_zero(total("hooklog_deliveries_pending", "state")), "{{state}}"),),
            stacked=True,
        ),
    ),
)

_TROUBLE = Row(
    "Trouble, ours and theirs",
    (
        Panel(
            "graph",
            "Dead letters",
            "Deliveries a second that were given up: their schedule of retries is over, or the endpoint is"
            " gone. They can be resent.",
            "ops",
            (Prom(rate("hooklog_dead_letters_total"), "dead letters"),),
            width=6,
        ),
        Panel(
            "graph",
            "Overdue retries",
            "For how long the oldest retry that is due has not been released. Retries leave within a second;"
            " 60 s page somebody.",
            "s",
            (Prom(worst("hooklog_oldest_overdue_retry_seconds"), "oldest"),),
            width=6,
            steps=((10, "yellow"), (60, "red")),
        ),
        Panel(
            "graph",
            "Not where they must be",
            "What the last check of the accounting missed, by problem: overdue, unrouted, contradictions on"
            " the log, rows of ClickHouse that differ from it.",
            "short",
            (Prom(or_zero(worst("hooklog_unaccounted", "problem")), "{{problem}}"),),
            width=6,
            steps=((1, "red"),),
        ),
        Panel(
            "graph",
            "People told",
            "Notifications a second, by kind and by what became of them: mails and operational webhooks about"
            " exhausted deliveries and endpoints in trouble.",
            "ops",
            (Prom(or_zero(rate("hooklog_notifications_total", "kind, result")), "{{kind}}: {{result}}"),),
            width=6,
        ),
    ),
)

_DOORS = Row(
    "The API",
    (
        Panel(
            "graph",
            "Requests answered",
            "Requests a second that the API answered, by class of status. 5xx is our fault.",
            "reqps",
            (Prom(or_zero(rate("hooklog_api_requests_total", "status")), "{{status}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "graph",
            "Time to answer",
            "Quantiles of the API's time to answer, all routes. Publishing waits for the broker's"
            " acknowledgement, a change for the view to have it.",
            "s",
            tuple(
                Prom(or_zero(quantile(q, "hooklog_api_request_duration_seconds")), f"p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
            width=12,
            steps=((1, "yellow"),),
        ),
    ),
)

BOARD = Board(
    "hooklog-overview",
    "hooklog: overview",
    "Is it working, is the promise kept, and where to look if not.",
    (_IS_IT_WORKING, _IN_AND_OUT, _SLO, _TROUBLE, _DOORS),
    (JOB,),
)
