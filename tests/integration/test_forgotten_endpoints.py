"""What the API says of an endpoint whose snapshot is gone, 30 days after its deletion."""

from __future__ import annotations

from engine.core.routing import partition_of
from engine.dev.process import wait_until
from engine.ports import Output
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import LIMIT_S, PARTITIONS, Api, make_context, running


def forgotten(api: Api) -> str:
    """An endpoint that was deleted and forgotten; its id."""
    given = {"tenant": "acme", "url": "https://hooks.example.com/in"}
    made: str = api.ask("POST", "/v1/endpoints", given).json()["id"]
    assert api.ask("DELETE", f"/v1/endpoints/{made}").status_code == 204
    log = api.context.log
    assert isinstance(log, MemoryLog)
    log.append(Output("endpoints", partition_of("acme", PARTITIONS), made.encode(), None))
    assert wait_until(lambda: made not in api.services.configuration.endpoints, LIMIT_S, 0.02)
    return made


def test_a_forgotten_endpoint_is_404_everywhere() -> None:
    """As one that never was."""
    with running(make_context()) as api:
        made = forgotten(api)
        path = f"/v1/endpoints/{made}"
        for method, route, body in (
            ("GET", path, None),
            ("PATCH", path, {"description": "again"}),
            ("DELETE", path, None),
            ("POST", f"{path}/enable", None),
            ("POST", f"{path}/rotate-secret", {}),
            ("POST", f"{path}/test", {"event_type": "ping"}),
            ("GET", f"{path}/health", None),
            ("POST", "/v1/replays", {"endpoint": made, "since": "2026-01-01T00:00:00Z", "only": "all"}),
        ):
            assert api.ask(method, route, body).status_code == 404, (method, route)
        assert api.ask("GET", "/v1/endpoints?tenant=acme").json()["data"] == []
