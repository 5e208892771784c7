"""Secrets that are planted everywhere are found nowhere but in the one answer that shows them."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import pytest

from engine.core.change import FactBase
from engine.runtime.history.trail import change_rows
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import load_settings
from engine.runtime.topics import catalogue
from tests.integration.api_fixtures import KEY, NOBODY, PARTITIONS, Api, Ask, holding, make_context, running
from tests.integration.routes import routes

URL = "https://hooks.example.com/in"
SHORT = 20
"""Characters of a secret of which none may be seen either, at its beginning or its end."""


def new_secret() -> str:
    """One that every profile with `whsec_` takes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def forms(secret: str) -> Iterator[bytes]:
    """What a secret may look like where it leaks: itself, its ends, its bytes, each encoded again."""
    text = secret.encode()
    tail = secret.split("_", 2)[2] if secret.startswith("hl_") else secret.removeprefix("whsec_")
    decoded = base64.urlsafe_b64decode(tail[: len(tail) // 4 * 4].replace("+", "-").replace("/", "_"))
    for raw in (text, tail.encode(), decoded):
        yield raw
        yield raw.hex().encode()
        yield base64.b64encode(raw).rstrip(b"=")
        yield base64.urlsafe_b64encode(raw).rstrip(b"=")
        yield quote(raw, safe="").encode()
    yield from (tail[:SHORT].encode(), tail[-SHORT:].encode())


@dataclass
class Planted:
    """An API whose answers are all kept, and the secrets that it has been given or has made."""

    api: Api
    secrets: list[str]
    seen: list[bytes] = field(default_factory=list)
    """Answers that may show no secret."""

    def ask(self, method: str, path: str, json: object = None, key: str = KEY, **more: str) -> httpx.Response:
        """Ask, and keep the answer."""
        (answer,) = self.api.together(Ask(method, path, json, headers=holding(key) | more))
        self.seen.append(whole(answer))
        return answer

    def shown(self, name: str, path: str, json: object, key: str = KEY) -> httpx.Response:
        """POST what is answered with a secret this once; repeat it under the same Idempotency-Key."""
        repeat = {"Idempotency-Key": secrets.token_hex(8)}
        (answer,) = self.api.together(Ask("POST", path, json, headers=holding(key) | repeat))
        assert answer.status_code in (200, 201), answer.text
        secret = answer.json()[name]
        assert any(form in whole(answer) for form in forms(secret))
        self.secrets.append(secret)
        self.seen.append(whole(answer).replace(secret.encode(), b"***"))
        assert name not in self.ask("POST", path, json, key, **repeat).json()
        return answer


def whole(answer: httpx.Response) -> bytes:
    """Status, headers and body."""
    head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
    return f"{answer.status_code}\n{head}\n".encode() + answer.content


@pytest.fixture
def planted() -> Iterator[Planted]:
    """An API whose admin key and master key are looked for as well."""
    admin, master = f"hl_{'0' * 16}_{secrets.token_urlsafe(32)}", base64.b64encode(secrets.token_bytes(32))
    settings = load_settings(
        admin_key=admin, master_key=master.decode(), partitions=PARTITIONS, clickhouse=NOBODY
    )
    with running(make_context(settings)) as api:
        yield Planted(api, [admin, master.decode()])


def exercise(planted: Planted) -> None:
    """Make, change, rotate and delete; err in every way; ask for everything that can be asked for."""
    admin = planted.secrets[0]
    planted.ask("POST", "/v1/tenants", {"id": "acme"}, admin)
    key_answer = planted.shown("key", "/v1/keys", {"scopes": ["admin"], "tenant": "acme"}, admin)
    key = key_answer.json()["key"]
    paths = []
    for profile in ("standard", "baxcloud", "bedrud", "meetingbaas"):
        made = planted.shown("secret", "/v1/endpoints", {"url": URL, "profile": profile}, key)
        paths.append(made.headers["location"])
        planted.shown("secret", f"{paths[-1]}/rotate-secret", {}, key)
    own = [new_secret(), new_secret()]
    planted.secrets += own
    chosen = {"url": URL, "secret": new_secret(), "headers": {"X-A": own[0], "X-B": own[0]}}
    path = planted.shown("secret", "/v1/endpoints", chosen, key).headers["location"]
    planted.shown("secret", f"{path}/rotate-secret", {"secret": new_secret()}, key)
    revoked = planted.shown("key", "/v1/keys", {"scopes": ["read"]}, key).json()
    planted.ask("DELETE", f"/v1/keys/{revoked['id']}", key=key)
    planted.ask("GET", "/v1/endpoints", key=revoked["key"])
    planted.ask("PATCH", path, {"profile": "bedrud"}, key)
    assert planted.ask("PATCH", path, {"headers": {"X-A": own[1]}}, key).status_code == 200
    err(planted, path, key)
    for route in routes(planted.api):
        ids = dict.fromkeys(route.in_path, "x") | {"endpoint_id": paths[0].rpartition("/")[2]}
        for who in (admin, key):
            planted.ask(route.method, route.path.format_map(ids), {} if route.in_body else None, who)
    planted.ask("DELETE", paths[1], key=key)
    planted.ask("DELETE", "/v1/tenants/acme", key=admin)


def err(planted: Planted, path: str, key: str) -> None:
    """Put a secret where it is refused."""
    secret = new_secret()
    planted.secrets.append(secret)
    for body in (
        {"url": URL, "secret": [secret]},
        {"url": "x", "secret": secret},
        {"url": URL, "profile": "nope", "secret": secret},
        {"url": URL, "secret": secret + "!"},
        {"url": URL, "secret": {"a": secret}},
        {"url": URL, "secret": [], "headers": {"X-A": f"{secret}\n", "X B": secret, "Host": secret}},
    ):
        assert planted.ask("POST", "/v1/endpoints", body, key).status_code == 422
        assert planted.ask("POST", f"{path}/rotate-secret", body, key).status_code == 422
    assert planted.ask("PATCH", path, {"secret": secret}, key).status_code == 422
    raw = b'{"secret":"%s",}' % secret.encode()
    (answer,) = planted.api.together(Ask("POST", "/v1/endpoints", content=raw, headers=holding(key)))
    planted.seen.append(whole(answer))
    assert answer.status_code == 400
    for wrong in (key[:-1] + "!", secret, f"{key} {key}"):
        assert planted.ask("GET", "/v1/endpoints", key=wrong).status_code == 401


def records(api: Api) -> Iterable[bytes]:
    """Everything on the log: keys, values, headers; and the rows that the audit trail is made of."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    for topic in catalogue(api.context.settings):
        for partition in range(PARTITIONS):
            for record in log.records((topic.name, partition)):
                yield from (record.key or b"", record.value or b"", *record.headers.values())
                if topic.name == "changes":
                    fact = api.context.codec.decode(record.value)
                    assert isinstance(fact, FactBase)
                    yield repr(change_rows(record, fact)).encode()


def reprs(api: Api) -> Iterable[bytes]:
    """What a traceback or a debugger's print would show."""
    configuration = api.services.configuration
    for each in (api.services, api.context, api.context.settings, api.context.vault, configuration.keyring):
        yield repr(each).encode()
    for known in (configuration.endpoints, configuration.keys, configuration.tenants):
        yield repr(known).encode()


def test_no_secret_is_found_anywhere_but_in_the_answer_that_shows_it(
    planted: Planted, capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a record, a log line, a metric, another answer, the OpenAPI document or a repr."""
    with caplog.at_level(logging.DEBUG):
        exercise(planted)
    for path in ("/metrics", "/openapi.json", "/healthz", "/readyz"):
        assert planted.ask("GET", path, key=planted.secrets[0]).status_code == 200
    captured = capfdbinary.readouterr()
    places = {
        "an answer": planted.seen,
        "a record": list(records(planted.api)),
        "a log line": [captured.out, captured.err, caplog.text.encode()],
        "a repr": list(reprs(planted.api)),
    }
    assert len(planted.secrets) >= 15
    assert len(places["a record"]) >= 100
    assert b"history.unavailable" in captured.out + captured.err
    for number, secret in enumerate(planted.secrets):
        for form in forms(secret):
            for place, texts in places.items():
                assert not any(form in text for text in texts), f"secret {number} is in {place}"
