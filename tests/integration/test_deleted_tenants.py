"""What is asked for a tenant that was deleted is refused before anything of it is on the log."""

from __future__ import annotations

import asyncio

import pytest

from engine.api.problems import Problem
from engine.core.change import CreateEndpoint
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, make_context, running


def creations(api: Api) -> int:
    """How many endpoints were asked for on the log."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    found = [record for n in range(PARTITIONS) for record in log.records(("commands", n))]
    return sum(isinstance(api.context.codec.decode(record.value), CreateEndpoint) for record in found)


def test_no_secret_is_sealed_for_a_tenant_that_was_deleted() -> None:
    """Its data key is shredded: the secret and the headers could only be sealed by the command key."""
    given = {
        "tenant": "gone",
        "url": "https://hooks.example.com/in",
        "headers": {"Authorization": "Bearer canary"},
    }
    with running(make_context()) as api:
        assert api.ask("POST", "/v1/endpoints", given).status_code == 201
        assert api.ask("DELETE", "/v1/tenants/gone").status_code == 204
        refused = api.ask("POST", "/v1/endpoints", given)
        assert (refused.status_code, "was deleted" in refused.json()["detail"]) == (409, True)
        assert creations(api) == 1


def test_who_waits_for_a_secret_is_told_that_its_tenant_was_deleted() -> None:
    """At once, and not 10 s later that the master keys may differ."""
    with running(make_context()) as api:
        given = {"tenant": "gone", "url": "https://hooks.example.com/in"}
        made = api.ask("POST", "/v1/endpoints", given).json()["id"]
        endpoint = api.services.configuration.endpoints[made]
        assert api.ask("DELETE", "/v1/tenants/gone").status_code == 204
        with pytest.raises(Problem) as refused:
            api._runner.run(asyncio.wait_for(api.services.control.secret_of(endpoint), 2))
        assert (refused.value.status_code, "deleted" in refused.value.detail) == (404, True)
