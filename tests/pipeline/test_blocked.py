"""An attempt that the egress guard blocks is a fact like any other, and is counted."""

from __future__ import annotations

from prometheus_client import REGISTRY

from engine.core.diagnosis import likely_cause
from engine.runtime.delivering.http import AiohttpSender, Resolver
from tests.receivers.pipeline import Spy, a_pipeline
from tests.runtime.test_dial import Dialer, look_up

ENDPOINTS = {"inside": "http://private.example/", "metadata": "http://169.254.169.254/latest/meta-data/"}


class Guarded(Spy):
    """Production's guard, and a dialer that connects nowhere."""

    def made(self) -> AiohttpSender:
        """No network is allowed."""
        self.dialer = Dialer()
        return AiohttpSender(socket_factory=self.dialer, resolver=Resolver(look_up))


def counted() -> float:
    """How many blocked attempts this process has counted."""
    labels = {"outcome": "failure", "error_class": "blocked", "trigger": "scheduled"}
    return REGISTRY.get_sample_value("hooklog_attempts_total", labels) or 0


def test_blocked_attempts_are_facts_and_counted() -> None:
    """error_class `blocked` with the address, retried like any failure; nothing is dialled."""
    with a_pipeline({}, Guarded) as pipeline:
        for name, url in ENDPOINTS.items():
            pipeline.create_endpoint(name, url=url)
        pipeline.run(1)
        before = counted()
        pipeline.publish("m1")
        attempts = [each for each in pipeline.attempted(2) if each.attempt == 1]
        assert isinstance(pipeline.spy, Guarded)
        assert pipeline.spy.dialer.dialled == []
        assert counted() - before >= 2
    assert {each.endpoint_id: each.error for each in attempts} == {
        "inside": "the address 10.0.0.1 is not allowed",
        "metadata": "the address 169.254.169.254 is not allowed",
    }
    assert {(each.outcome, each.error_class, each.status_code, each.decision) for each in attempts} == {
        ("failure", "blocked", 0, "retry")
    }
    assert likely_cause("blocked") == "the URL leads to an address that requests may not go to"
