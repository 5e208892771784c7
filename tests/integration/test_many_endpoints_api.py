"""One endpoint more than a tenant may have is refused, and the answer says what to do."""

from __future__ import annotations

from tests.integration.api_fixtures import make_context, running

URL = "https://hooks.example.com/in"


def test_one_endpoint_too_many_is_a_conflict_until_one_is_deleted() -> None:
    """Of this tenant; another has its own count."""
    settings = make_context().settings.model_copy(update={"tenant_endpoints_max": 2})
    with running(make_context(settings)) as api:
        made = [api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": f"{URL}/{n}"}) for n in range(2)]
        assert [each.status_code for each in made] == [201, 201]
        refused = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": URL})
        assert refused.status_code == 409
        for word in ("'acme'", "2 is the most", "HOOKLOG_TENANT_ENDPOINTS_MAX"):
            assert word in refused.json()["detail"]
        assert api.ask("POST", "/v1/endpoints", {"tenant": "globex", "url": URL}).status_code == 201
        assert api.ask("DELETE", made[0].headers["location"]).status_code == 204
        assert api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": f"{URL}/3"}).status_code == 201
