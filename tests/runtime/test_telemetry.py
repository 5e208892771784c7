"""The metrics: what Prometheus makes of them, and what they must never say."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from engine.runtime import telemetry

METRICS = {name: each for name, each in vars(telemetry).items() if isinstance(each, MetricWrapperBase)}


def promtool_says(text: bytes) -> str:
    """What `promtool check metrics` finds in an exposition; nothing if it is sound."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: install Prometheus")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    return (checked.stdout + checked.stderr).decode()


def test_promtool_finds_nothing_in_all_metrics_together() -> None:
    """Each of them with a value of each of its labels, next to the process's own."""
    for each in METRICS.values():
        if each._labelnames:
            each.labels(*("x" for _ in each._labelnames))
    try:
        assert promtool_says(generate_latest(REGISTRY) + generate_latest(telemetry.STACK)) == ""
    finally:
        for each in METRICS.values():
            if each._labelnames:
                each.remove(*("x" for _ in each._labelnames))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_named_and_explained_as_prometheus_would_have_it(name: str) -> None:
    """Prefix, help as a sentence, base units, no label that grows with tenants, endpoints or messages."""
    described = next(iter(METRICS[name].describe()))
    assert described.name.startswith("hooklog_")
    assert described.documentation.endswith(".")
    assert described.documentation[0].isupper() or described.documentation[0].isdigit()
    assert not described.name.endswith(("_ms", "_us", "_milliseconds", "_microseconds", "_percent"))
    allowed = {
        *(
            "outcome",
            "error_class",
            "trigger",
            "decision",
            "verdict",
            "reason",
            "tier",
            "result",
            "kind",
            "state",
        ),
        *("group", "topic", "event", "process", "program", "code", "table", "problem", "sealed"),
        *("method", "route", "status"),
    }
    assert set(METRICS[name]._labelnames) <= allowed


def test_histograms_and_durations_are_in_seconds() -> None:
    """And nothing else that is counted has a unit that hides in its name."""
    for each in METRICS.values():
        described = next(iter(each.describe()))
        if isinstance(each, Histogram):
            assert described.name.endswith("_seconds")
        assert isinstance(each, Counter | Gauge | Histogram)


@pytest.mark.parametrize("each", [telemetry.FIRST_ATTEMPT_SECONDS, telemetry.FIRST_ATTEMPT_OWN_SECONDS])
def test_the_slo_is_an_edge_of_first_attempts_latency(each: Histogram) -> None:
    """Else nobody could say how many were in time."""
    edges = {
        sample.labels["le"] for family in each.collect() for sample in family.samples if "le" in sample.labels
    }
    assert "30.0" in edges


def test_the_processs_own_figures_are_there() -> None:
    """CPU, memory and start: what restarts and busy processes are seen by."""
    text = generate_latest().decode()
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"):
        assert f"\n{name} " in text
