"""The log and the groups on it: lag, rebalances, windows, copies dropped, clients, processes."""

from __future__ import annotations

from grafana.generate import health
from grafana.generate.model import Board, Panel, Prom, Row
from grafana.generate.pickers import JOB
from grafana.generate.promql import or_zero, quantile, rate, series, total, worst

_NOW = Row(
    "Do the groups keep up?",
    (
        Panel(
            "stat",
            "Oldest record not done",
            "The largest lag of any group, in seconds.",
            "s",
            (Prom(or_zero(worst("hooklog_lag_seconds"))),),
            width=4,
            steps=((30, "yellow"), (300, "red")),
        ),
        Panel(
            "stat",
            "Broker answers",
            "Whether a Kafka broker answers every process.",
            "none",
            (Prom(f"min ({series('hooklog_broker_up')})"),),
            width=4,
            base="red",
            steps=((1, "green"),),
            words={"1": "all", "0": "not all"},
        ),
        Panel(
            "stat",
            "Commits wait",
            "The longest time for which a group's commit has not been acknowledged. From half a session on"
            " the group begins no new request.",
            "s",
            (Prom(or_zero(worst("hooklog_commit_age_seconds"))),),
            width=4,
            steps=((3, "yellow"), (10, "red")),
        ),
        Panel(
            "stat",
            "Window full",
            "The fullest window of any group: the share of its places for records that are taken in and not"
            " done. At 1 it takes in no more.",
            "percentunit",
            (Prom(or_zero(worst("hooklog_window_fill_ratio"))),),
            width=4,
            steps=((0.7, "yellow"), (0.9, "red")),
        ),
        Panel(
            "stat",
            "Waiting for an upgrade",
            "Records of a newer hooklog that groups of this version came upon in the last hour. They wait:"
            " upgrade.",
            "short",
            (Prom(or_zero(f"sum (increase({series('hooklog_unknown_schema_records_total')}[1h]))")),),
            width=4,
            steps=((1, "red"),),
        ),
        Panel(
            "stat",
            "Checked whole",
            "Time since the accounting was last checked whole: the log and ClickHouse.",
            "s",
            (Prom(f"time() - (max ({series('hooklog_accounting_checked_timestamp_seconds')}) > 0)"),),
            width=4,
            steps=((120, "yellow"), (900, "red")),
        ),
    ),
)

_LAG = Row(
    "Lag and windows",
    (
        Panel(
            "graph",
            "Lag",
            "Age of the oldest record that a group has not done, by topic. What waits on a delay topic is not"
            " lag.",
            "s",
            (Prom(or_zero(worst("hooklog_lag_seconds", "group, topic")), "{{group}} on {{topic}}"),),
            steps=((30, "yellow"), (300, "red")),
        ),
        Panel(
            "graph",
            "Window fill",
            "Share of a group's places for records taken in that are taken.",
            "percentunit",
            (Prom(or_zero(worst("hooklog_window_fill_ratio", "group")), "{{group}}"),),
            most=1,
            steps=((0.9, "red"),),
        ),
        Panel(
            "graph",
            "Inputs open",
            "Records taken in whose outputs are not all acknowledged: what a new owner would read back.",
            "short",
            (Prom(or_zero(total("hooklog_inputs_open", "group")), "{{group}}"),),
        ),
    ),
)

_MEMBERS = Row(
    "Members",
    (
        Panel(
            "graph",
            "Rebalances",
            "Partitions a second that were assigned, revoked or lost. Lost: the member was too slow for its"
            " session.",
            "ops",
            (
                Prom(
                    or_zero(rate("hooklog_rebalances_total", "group, event")),
                    "{{group}} {{event}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "Partitions owned",
            "How many partitions each group's members own together. Less than there are: some are nobody's.",
            "short",
            (Prom(or_zero(total("hooklog_partitions_owned", "group")), "{{group}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Since the last poll",
            "How long ago a group's member last asked for records. It drains, reads back or is stuck.",
            "s",
            (Prom(or_zero(worst("hooklog_poll_age_seconds", "group")), "{{group}}"),),
            width=6,
            steps=((10, "yellow"), (60, "red")),
        ),
        Panel(
            "graph",
            "Acknowledgements owed",
            "How long commits, by group, and outputs, by process, have not been acknowledged by the broker.",
            "s",
            (
                Prom(or_zero(worst("hooklog_commit_age_seconds", "group")), "commits of {{group}}"),
                Prom(or_zero(worst("hooklog_output_age_seconds", "process")), "outputs of {{process}}"),
            ),
            width=6,
            steps=((3, "yellow"), (10, "red")),
        ),
    ),
)

_COPIES = Row(
    "Duplicates suppressed, records refused",
    (
        Panel(
            "graph",
            "Copies dropped",
            "Copies a second of records that a group had seen, left by a crash or an overlapping owner.",
            "ops",
            (Prom(or_zero(rate("hooklog_copies_dropped_total", "group")), "{{group}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Duplicate messages",
            "Messages a second that a producer sent again within the window, and that were not routed again.",
            "ops",
            (
                Prom(
                    or_zero(rate("hooklog_messages_routed_total", where='verdict="duplicate"')), "duplicates"
                ),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "Read back",
            "Own outputs a second read again after partitions were assigned, to know what is done.",
            "ops",
            (Prom(or_zero(rate("hooklog_read_back_records_total", "group")), "{{group}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Records refused",
            "Records a second put on the topic invalid, by reason. A producer writes what nobody can read.",
            "ops",
            (Prom(or_zero(rate("hooklog_invalid_records_total", "reason")), "{{reason}}"),),
            width=6,
            steps=((0.001, "yellow"),),
        ),
    ),
)

_HISTORY = Row(
    "From the log to ClickHouse",
    (
        Panel(
            "graph",
            "Rows written",
            "Rows a second that the projector wrote, by table.",
            "ops",
            (Prom(or_zero(rate("hooklog_projector_rows_total", "table")), "{{table}}"),),
            stacked=True,
        ),
        Panel(
            "graph",
            "Behind by",
            "Age of the oldest record that the projector has read and not yet written.",
            "s",
            (Prom(worst("hooklog_projection_delay_seconds"), "delay"),),
            steps=((10, "yellow"), (300, "red")),
        ),
        Panel(
            "graph",
            "Writes that failed",
            "Writes to ClickHouse a second that failed and were tried again. Nothing is lost meanwhile.",
            "ops",
            (Prom(rate("hooklog_projector_errors_total"), "failed"),),
            steps=((0.1, "yellow"),),
        ),
    ),
)

_CLIENTS = Row(
    "Kafka clients",
    (
        Panel(
            "graph",
            "Round trip",
            "How long a broker took to acknowledge each group's last commit.",
            "s",
            (Prom(or_zero(worst("hooklog_kafka_round_trip_seconds", "group")), "{{group}}"),),
            width=6,
            steps=((1, "yellow"),),
        ),
        Panel(
            "graph",
            "Records queued",
            "Records in the client libraries of all processes that no broker has acknowledged.",
            "short",
            (Prom(total("hooklog_kafka_queued_records"), "queued"),),
            width=6,
        ),
        Panel(
            "graph",
            "Traffic",
            "Bytes a second that the groups' members sent to brokers and received from them.",
            "Bps",
            (
                Prom(or_zero(rate("hooklog_kafka_sent_bytes_total")), "sent"),
                Prom(or_zero(rate("hooklog_kafka_received_bytes_total")), "received"),
            ),
            width=6,
        ),
        Panel(
            "graph",
            "Errors and timeouts",
            "What the clients ran into a second, by librdkafka's name, and requests that a broker let time"
            " out. Some at a broker's restart are normal.",
            "ops",
            (
                Prom(or_zero(rate("hooklog_kafka_errors_total", "code")), "{{code}}"),
                Prom(or_zero(rate("hooklog_kafka_request_timeouts_total")), "timeouts"),
            ),
            width=6,
        ),
    ),
)

_PROCESSES = Row(
    "Processes",
    (
        Panel(
            "graph",
            "CPU",
            "Cores that each process uses. A group near 1 needs another process.",
            "short",
            (Prom(rate("process_cpu_seconds_total", "instance, program"), "{{instance}} {{program}}"),),
            width=6,
            steps=((0.9, "yellow"),),
        ),
        Panel(
            "graph",
            "Memory",
            "Resident memory of each process.",
            "bytes",
            (Prom(total("process_resident_memory_bytes", "instance, program"), "{{instance}} {{program}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "Commands decided",
            "Commands a second, by result: what people and machines asked for.",
            "ops",
            (Prom(or_zero(rate("hooklog_commands_total", "result")), "{{result}}"),),
            width=6,
        ),
        Panel(
            "graph",
            "The API's slowest routes",
            "99th percentile of the time to answer, by route.",
            "s",
            (
                Prom(
                    or_zero(quantile(0.99, "hooklog_api_request_duration_seconds", "method, route")),
                    "{{method}} {{route}}",
                ),
            ),
            width=6,
            steps=((1, "yellow"),),
        ),
    ),
)

BOARD = Board(
    "hooklog-groups",
    "hooklog: log and groups",
    "Lag, rebalances, windows, duplicates suppressed, clients and processes.",
    (_NOW, _LAG, _MEMBERS, _COPIES, _HISTORY, health.ROW, _CLIENTS, _PROCESSES),
    (JOB,),
)
