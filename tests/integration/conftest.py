"""Fixtures of the integration tests."""

from tests.integration.history_fixtures import bare, chdb, store

__all__ = ["bare", "chdb", "store"]
