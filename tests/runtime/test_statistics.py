"""Counters of the client library: brokers come and go, what was counted does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from engine.runtime.kafka.statistics import Figures, grown, noted

_ONE, _TWO = "127.0.0.1:9092/1", "127.0.0.1:9093/2"
FIGURES = st.builds(Figures, *(st.integers(0, 1 << 40) for _ in Figures._fields))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({}, {}, Figures()),
        ({}, {_ONE: Figures(5, 7, 1)}, Figures(5, 7, 1)),
        ({_ONE: Figures(5, 7, 1)}, {_ONE: Figures(6, 7, 3)}, Figures(1, 0, 2)),
        ({_ONE: Figures(5, 7, 1), _TWO: Figures(9, 9, 9)}, {_ONE: Figures(5, 8, 1)}, Figures(0, 1, 0)),
        ({_ONE: Figures(5, 7, 1)}, {_TWO: Figures(2, 3, 0)}, Figures(2, 3, 0)),
        ({_ONE: Figures(50, 70, 10)}, {_ONE: Figures(2, 3, 0)}, Figures(2, 3, 0)),
    ],
    ids=["nothing", "first", "more", "one is gone", "another came", "it came back"],
)
def test_growth(before: dict[str, Figures], now: dict[str, Figures], expected: Figures) -> None:
    """Counted by broker: one that is forgotten takes nothing away."""
    assert grown(before, now) == expected


@given(st.dictionaries(st.text(max_size=2), FIGURES), st.dictionaries(st.text(max_size=2), FIGURES))
def test_never_shrinks(before: dict[str, Figures], now: dict[str, Figures]) -> None:
    """Whatever the library says: a Prometheus counter must not go back, and nobody halts over a figure."""
    assert min(grown(before, now)) >= 0


def test_a_broker_that_dies_does_not_end_its_client() -> None:
    """Its counts vanish from the statistics; the counters stay where they were."""
    note = noted("test_statistics", lambda partitions: None)
    note(_said({_ONE: 100, _TWO: 40}))
    note(_said({_ONE: 110}))
    note(_said({_ONE: 110, _TWO: 1}))
    sent = {"group": "test_statistics"}
    assert REGISTRY.get_sample_value("hooklog_kafka_sent_bytes_total", sent) == 151


def _said(sent: dict[str, int]) -> str:
    brokers = {name: {"txbytes": n, "rxbytes": 2 * n, "req_timeouts": 0} for name, n in sent.items()}
    return json.dumps({"brokers": brokers, "topics": {}})
