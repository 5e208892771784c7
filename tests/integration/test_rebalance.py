"""Rebalances: a group is scaled out and in under load, one of its processes freezes; the books agree."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.dev.bench.scenario import receiver
from engine.dev.process import wait_until
from tests.integration.groups import LIMIT_S, Groups, loaded

pytestmark = pytest.mark.integration
HANDED_OVER = 3
"""How often a dispatcher gives up all it has (one freezes, two are stopped): what is in flight may repeat."""


@pytest.fixture(params=["classic", "consumer"])
def groups(request: pytest.FixtureRequest, kafka: str, prefix: str, tmp_path: Path) -> Iterator[Groups]:
    """Groups at work for one endpoint, with either membership."""
    groups = Groups(kafka, prefix, tmp_path, HOOKLOG_GROUP_PROTOCOL=str(request.param))
    with receiver(tmp_path) as url:
        try:
            groups.start("control", "router", "dispatcher")
            groups.create_endpoint(url)
            yield groups
        finally:
            groups.stop()


def owned(groups: Groups, name: str) -> int:
    """How many partitions a process says it owns."""
    lines = groups.probe(name, "/metrics")[1].splitlines()
    found = [line for line in lines if line.startswith("hooklog_partitions_owned{")]
    return int(float(found[0].rpartition(" ")[2])) if found else 0


def wait_shared(groups: Groups, *names: str) -> None:
    """Wait until each owns something, and all together everything once."""
    count = groups.settings.partitions

    def shared() -> bool:
        each = [owned(groups, name) for name in names]
        return sum(each) == count and min(each) > 0

    assert wait_until(shared, LIMIT_S, 0.1), [owned(groups, name) for name in names]


def test_groups_scale_under_load(groups: Groups) -> None:
    """1 -> 3 -> 1 routers and dispatchers: nobody halts, all is delivered, and hardly anything twice."""
    routers = ("router", "router.1", "router.2")
    dispatchers = ("dispatcher", "dispatcher.1", "dispatcher.2")
    with loaded(groups) as load:
        groups.start(*routers[1:], *dispatchers[1:])
        wait_shared(groups, *routers)
        wait_shared(groups, *dispatchers)
        freeze_until_missed(groups, "dispatcher.1", "dispatcher", "dispatcher.2")
        wait_shared(groups, *dispatchers)
        groups.stop(*routers[1:], *dispatchers[1:])
        wait_shared(groups, "router")
        wait_shared(groups, "dispatcher")
    groups.wait_delivered()
    assert groups.lines == []
    twice = sum(groups.attempts().values()) - load.sent
    assert 0 <= twice <= HANDED_OVER * groups.settings.endpoint_in_flight


def freeze_until_missed(groups: Groups, name: str, *others: str) -> None:
    """Stop a process in its tracks until others own what it had; then let it find out."""
    groups.supervisor.signal(name, signal.SIGSTOP)
    try:
        wait_shared(groups, *others)
    finally:
        groups.supervisor.signal(name, signal.SIGCONT)
