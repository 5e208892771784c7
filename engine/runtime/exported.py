"""Gauges of what the clients of the log note: set when somebody asks for the metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.runtime import telemetry
from engine.runtime.vitals import Sign

_WAITS_ON_PURPOSE = "retry."


def export(signs: Sequence[Sign], answers: bool, process: str) -> None:
    """Say how a process's clients fare; `answers` is whether a broker does."""
    now = time.monotonic()
    telemetry.BROKER_UP.labels(process).set(answers)
    outputs = [sign for sign in signs if sign.kind != "member"]
    telemetry.OUTPUT_AGE.labels(process).set(max((sign.wait_s(now) for sign in outputs), default=0))
    telemetry.KAFKA_QUEUED.set(sum(sign.queued() for sign in outputs))
    for sign in signs:
        if sign.kind == "member":
            telemetry.COMMIT_AGE.labels(sign.group).set(sign.wait_s(now))
            telemetry.POLL_AGE.labels(sign.group).set(sign.silence_s(now))
            telemetry.KAFKA_ROUND_TRIP.labels(sign.group).set(sign.round_trip_s)
            _export_lag(sign)


def _export_lag(sign: Sign) -> None:
    if sign.backlog is not None:
        for topic, age_s in sign.backlog.ages_s(time.time_ns() // 1000).items():
            if not topic.startswith(_WAITS_ON_PURPOSE):
                telemetry.LAG_SECONDS.labels(sign.group, topic).set(age_s)
