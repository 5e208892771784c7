"""Meeting BaaS's customers configure one URL from several places at once."""

from __future__ import annotations

from tests.integration.api_fixtures import Ask, make_context, running
from tests.integration.test_bots import HEADER, PATH, URL, call, key_of

SECRETS = [f"secret-number-{n}" for n in range(6)]


def test_different_bodies_for_a_new_url_make_one_endpoint() -> None:
    """One makes it, the others change it; none is told of an Idempotency-Key that it never sent."""
    with running(make_context()) as api:
        key = key_of(api, "at-once")
        headers = {HEADER: key, "Authorization": ""}
        bodies = [{"webhook_url": URL, "secret": secret} for secret in SECRETS]
        answers = api.together(*(Ask("POST", PATH, body, headers=headers) for body in bodies))
        assert sorted(each.status_code for each in answers) == [200] * 5 + [201], [a.text for a in answers]
        (made,) = {answer.json()["id"] for answer in answers}
        assert [each["id"] for each in call(api, key).json()["data"]] == [made]
        assert {answer.json()["secret"] for answer in answers} == set(SECRETS)
