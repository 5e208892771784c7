"""What the group health knows of endpoints, and whether people are told."""

from __future__ import annotations

from grafana.generate.model import Panel, Prom, Row
from grafana.generate.promql import or_zero, rate, series, total, worst

_OWN = 'group=~"health|mail|operations"'

ROW = Row(
    "Endpoints' health, and who is told of it",
    (
        Panel(
            "graph",
            "Endpoints in trouble",
            "Endpoints that have failed since their last success: failing (nobody was told yet), warned,"
            " disabled for it. Many at once may be our own network.",
            "short",
            (Prom(or_zero(total("hooklog_endpoints_failing", "state")), "{{state}}"),),
            width=6,
            stacked=True,
        ),
        Panel(
            "graph",
            "Health's lag",
            "Age of the oldest record that health, its mail or its webhooks have not done. Mail that the"
            " server does not take waits here.",
            "s",
            (Prom(or_zero(worst("hooklog_lag_seconds", "group", _OWN)), "{{group}}"),),
            width=6,
            steps=((60, "yellow"), (600, "red")),
        ),
        Panel(
            "graph",
            "Notices",
            "Notices a second by what became of them: written, then mailed, given up, or published as"
            " webhooks.",
            "ops",
            (Prom(or_zero(rate("hooklog_notifications_total", "result")), "{{result}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Mail that waits",
            "Notices whose mail the server has not taken yet, and how often in half an hour it took none.",
            "short",
            (
                Prom(or_zero(total("hooklog_mails_waiting")), "waiting"),
                Prom(or_zero(f"sum (increase({series('hooklog_mail_errors_total')}[30m]))"), "not taken"),
            ),
            width=6,
            steps=((5, "yellow"),),
        ),
    ),
)
