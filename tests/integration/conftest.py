"""Fixtures of the integration tests."""

from tests.integration.history_fixtures import bare, chdb, store
from tests.integration.scene import scene

__all__ = ["bare", "chdb", "scene", "store"]
