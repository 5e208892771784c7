"""The whole stack's metrics, as `hooklog dev` serves them at the API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.dev.process import wait_until
from engine.dev.stack import FREE_PORTS, Stack
from engine.runtime.topics import GROUPS
from tests.runtime.test_telemetry import promtool_says

_LIMIT_S = 180.0


def scraped(stack: Stack) -> str:
    """What the API answers."""
    answer = httpx.get(stack.metrics["api"], timeout=_LIMIT_S)
    assert answer.status_code == 200
    return answer.text


def by_label(text: str, name: str, label: str) -> Mapping[str, float]:
    """A metric's samples by one of their labels."""
    return {
        sample.labels[label]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.e2e
def test_the_api_serves_what_every_process_says(tmp_path: Path) -> None:
    """Sound to Prometheus, with each group's lag; a killed process shows, and holds nothing up."""
    with Stack(tmp_path, FREE_PORTS, say=lambda _: None) as stack:
        text = scraped(stack)
        assert promtool_says(text.encode()) == ""
        cpu = partial(by_label, name="process_cpu_seconds_total", label="program")
        assert wait_until(lambda: set(cpu(scraped(stack))) == {"api", *GROUPS}, _LIMIT_S)
        up = partial(by_label, name="hooklog_program_up", label="program")
        assert wait_until(lambda: up(scraped(stack)) == dict.fromkeys(GROUPS, 1.0), _LIMIT_S), up(
            scraped(stack)
        )
        followers = {"control", "router", "dispatcher", "scheduler", "projector", "health", "replayer"}
        assert wait_until(
            lambda: set(by_label(scraped(stack), "hooklog_lag_seconds", "group")) >= followers, _LIMIT_S
        )
        received = "hooklog_kafka_received_bytes_total"
        assert wait_until(lambda: set(by_label(scraped(stack), received, "group")) >= followers, _LIMIT_S)
        lags = partial(by_label, name="hooklog_lag_seconds", label="group")
        assert wait_until(lambda: all(age < 5 for age in lags(scraped(stack)).values()), _LIMIT_S)
        stack.take_away("router", kill=True)
        assert up(scraped(stack))["router"] == 0
        for group in GROUPS:
            if group != "router":
                assert promtool_says(httpx.get(stack.metrics[group], timeout=_LIMIT_S).content) == ""
