"""Fixtures of the dashboard's tests: an API with the real engine behind its history, and who looks at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.runtime.history.clickhouse import History
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World, world
from tests.integration.api_fixtures import KEY, Api, dev_context, running
from tests.integration.conftest import history
from tests.integration.history_fixtures import bare, store, template

__all__ = ["bare", "history", "store", "template", "world"]


@pytest.fixture
def api(history: History) -> Iterator[Api]:
    """An API with an empty history."""
    with running(dev_context(), history=history) as running_api:
        yield running_api


@pytest.fixture
def admin(api: Api) -> Visitor:
    """Who holds the platform's key."""
    return Visitor(api, KEY)


@pytest.fixture
def acme(world: World) -> Visitor:
    """Who holds a key of the tenant acme that may do all within it."""
    return Visitor(world.api, world.api.new_key("admin", "manage", "publish", "read", tenant="acme"))
