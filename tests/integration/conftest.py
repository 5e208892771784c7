"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import clickhouse_connect
import pytest

from engine.runtime.history.clickhouse import History
from tests.integration.history_fixtures import Store, bare, store, template
from tests.integration.scene import scene

__all__ = ["bare", "history", "scene", "store", "template"]


@pytest.fixture
def history(store: Store, chdb: str) -> Iterator[History]:
    """This test's database, by a connection that several threads may use."""
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware", autogenerate_session_id=False)
    client.database = store.client.database
    yield History(lambda: client)
    client.close()
