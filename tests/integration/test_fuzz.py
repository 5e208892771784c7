"""The whole API under generated requests: never a 5xx, and always what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from engine.runtime.history.clickhouse import History
from tests.integration.api_fixtures import Api, Ask, holding, make_context, running

pytestmark = pytest.mark.integration

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 12
"""Of each route, of requests that should be understood and of such that should not."""
OTHERS_DO = ("/test", "/resend", "/retry", "/v1/replays")
"""Ends of paths that wait for groups which do not run here: 503 once the wait is over."""
OWN = "fuzzed"


@pytest.fixture
def api(history: History) -> Iterator[Api]:
    """One API with a tenant, over a history that answers."""
    with running(make_context(), limit_s=2, history=history) as running_api:
        running_api.ask("POST", "/v1/tenants", {"id": OWN})
        yield running_api


Case = schemathesis.Case[Any]


def sent(api: Api, key: str, case: Case) -> None:
    """Send a generated request and hold its answer to the document."""
    request = requests.Request(**case.as_transport_kwargs(base_url="http://api")).prepare()
    content = request.body.encode() if isinstance(request.body, str) else request.body
    assert content is None or isinstance(content, bytes)
    headers = {name.lower(): str(value) for name, value in request.headers.items()}
    headers |= {name.lower(): value for name, value in holding(key).items()}
    path = (request.url or "").removeprefix("http://api")
    (answer,) = api.together(Ask(case.method, path, content=content, headers=headers))
    waited = answer.status_code == 503 and case.path.endswith(OTHERS_DO)
    case.validate_response(answer, checks=CHECKS[1:] if waited else CHECKS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("tenant", [OWN, None])
def test_no_request_makes_the_api_fail_or_answer_what_is_not_described(
    api: Api, mode: GenerationMode, tenant: str | None
) -> None:
    """Every route, by the document: status, content type and body, with a key that may do everything."""
    key = api.new_key("admin", tenant=tenant)
    made = api.ask("POST", "/v1/endpoints", {"tenant": OWN, "url": "https://hooks.example.com"})
    known = {"endpoint_id": made.json()["id"]}
    document = api.ask("GET", "/openapi.json").json()
    described = schemathesis.openapi.from_dict(document).get_all_operations()
    operations = [each.ok() for each in described if isinstance(each, Ok)]
    assert len(operations) >= 20

    for operation in operations:
        spared = operation.method == "delete" or operation.path.endswith("/test")  # which waits for long
        ids = st.just({}) if spared else st.sampled_from([{}, known])

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode), ids=ids)
        def play(case: Case, ids: dict[str, str]) -> None:
            drawn = case.path_parameters
            case.path_parameters = {**drawn, **{name: ids[name] for name in ids if name in drawn}}
            sent(api, key, case)

        play()
    assert api.ask("GET", "/readyz").status_code == 200
