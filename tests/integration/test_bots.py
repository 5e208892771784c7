"""Meeting BaaS's own routes, called as its customers call them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import httpx
import pytest

from consumers import replayer
from engine.core.replay import Resend, StartReplay
from engine.core.routing import delivery_id
from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns, finished_rows
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import LIMIT_S, PARTITIONS, Api, Ask, make_context, published, running
from tests.integration.history_fixtures import TOPIC, Store, attempt, record

T = TypeVar("T")

PATH = "/bots/webhooks/bot"
HEADER = "x-meeting-baas-api-key"
URL = "https://a.example.com/hook"
SECRET = "shared-secret"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """One API for all tests here; each has an account of its own."""
    with running(make_context()) as running_api:
        yield running_api


def key_of(api: Api, tenant: str, *scopes: str) -> str:
    """A new key that is bound to a tenant."""
    api.ask("POST", "/v1/tenants", {"id": tenant})
    made = api.ask("POST", "/v1/keys", {"tenant": tenant, "scopes": scopes or ["manage"]})
    return str(made.json()["key"])


def call(api: Api, key: str, method: str = "GET", body: object = None, path: str = PATH) -> httpx.Response:
    """A request with the platform's header and no other key."""
    return api.together(Ask(method, path, body, headers={HEADER: key, "Authorization": ""}))[0]


def test_the_same_url_is_updated_and_another_is_another_endpoint(api: Api) -> None:
    """201 with a secret for a new URL, 200 without one for a known URL; the list has both, oldest first."""
    key = key_of(api, "urls")
    first = call(api, key, "POST", {"webhook_url": URL, "events": ["meeting.completed"], "secret": SECRET})
    assert (first.status_code, first.json()["secret"]) == (201, SECRET)
    other = call(api, key, "POST", {"webhook_url": URL + "2", "events": ["meeting.failed"]})
    assert (other.status_code, len(other.json()["secret"])) == (201, 64)
    again = call(api, key, "POST", {"webhook_url": URL, "events": ["meeting.*"], "enabled": False})
    assert again.status_code == 200
    assert "secret" not in again.json()
    listed = call(api, key).json()["data"]
    assert [(each["webhook_url"], each["events"], each["enabled"]) for each in listed] == [
        (URL, ["meeting.*"], False),
        (URL + "2", ["meeting.failed"], True),
    ]
    assert listed[0]["id"] == first.json()["id"]
    shown = api.ask("GET", f"/v1/endpoints/{listed[0]['id']}").json()
    assert (shown["profile"], shown["tenant"]) == ("meetingbaas", "urls")


def test_what_is_left_out_stays(api: Api) -> None:
    """Neither events nor enabled nor the secret change unless they are named."""
    key = key_of(api, "stays")
    body = {"webhook_url": URL, "events": ["meeting.completed"], "secret": SECRET, "enabled": False}
    made = call(api, key, "POST", body).json()
    again = call(api, key, "POST", {"webhook_url": URL, "secret": SECRET})
    assert (again.json()["events"], again.json()["enabled"]) == (["meeting.completed"], False)
    assert "secret" not in again.json()
    assert len(api.services.configuration.endpoints[made["id"]].secrets) == 1


def test_a_new_secret_takes_over(api: Api) -> None:
    """It is shown once, and what signs is it."""
    key = key_of(api, "secrets")
    made = call(api, key, "POST", {"webhook_url": URL, "secret": SECRET}).json()
    again = call(api, key, "POST", {"webhook_url": URL, "secret": "another-one"})
    assert again.json()["secret"] == "another-one"
    endpoint = api.services.configuration.endpoints[made["id"]]
    opened = api.services.configuration.keyring.open("secrets", endpoint.id, endpoint.secrets[-1])
    assert (opened, len(endpoint.secrets)) == ("another-one", 2)


def test_requests_at_once_for_a_new_url_make_one_endpoint(api: Api) -> None:
    """However many ask, one endpoint is made; after it is deleted the next one is another."""
    key = key_of(api, "at-once")
    body = {"webhook_url": URL, "events": ["meeting.*"], "secret": SECRET}
    ask = Ask("POST", PATH, body, headers={HEADER: key, "Authorization": ""})
    answers = api.together(ask, ask, ask)
    assert {answer.status_code for answer in answers} <= {200, 201}
    (made,) = {answer.json()["id"] for answer in answers}
    assert [each["id"] for each in call(api, key).json()["data"]] == [made]
    assert api.ask("DELETE", f"/v1/endpoints/{made}").status_code == 204
    anew = call(api, key, "POST", body)
    assert anew.status_code == 201
    assert anew.json()["id"] != made


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "webhook_url"),
        ({"webhook_url": "http://10.0.0.1/"}, "webhook_url"),
        ({"webhook_url": URL, "events": []}, "events"),
        ({"webhook_url": URL, "events": ["a b"]}, "events"),
        ({"webhook_url": URL, "secret": "short"}, "secret"),
        ({"webhook_url": URL, "enabled": "yes"}, "enabled"),
        ({"webhook_url": URL, "event": ["meeting.*"]}, "event"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(api: Api, body: dict[str, object], field: str) -> None:
    """422, and nothing is made."""
    key = key_of(api, "wrong")
    answer = call(api, key, "POST", body)
    assert answer.status_code == 422
    assert any(str(error["field"]).startswith(field) for error in answer.json()["errors"])
    assert call(api, key).json() == {"data": []}


def test_who_may_ask(api: Api) -> None:
    """No or a wrong key: 401, the platform's: 403; who may only read cannot configure; accounts apart."""
    key, reader = key_of(api, "mine"), key_of(api, "mine", "read")
    call(api, key, "POST", {"webhook_url": URL})
    bearer_only = api.ask("GET", PATH)
    assert (bearer_only.status_code, HEADER in bearer_only.json()["detail"]) == (401, True)
    assert call(api, "hl_wrong").status_code == 401
    assert call(api, "hl_admin_for_tests").status_code == 403
    assert len(call(api, reader).json()["data"]) == 1
    assert call(api, reader, "POST", {"webhook_url": URL}).status_code == 403
    assert call(api, key_of(api, "theirs")).json() == {"data": []}


# -- retry: what is asked of the replayer is on `commands` ------------------------------------


def commands(api: Api, kind: type[T]) -> list[T]:
    """What was asked for, of one kind."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [record for n in range(PARTITIONS) for record in log.records(("commands", n))]
    decoded = [api.context.codec.decode(record.value) for record in records]
    return [command for command in decoded if isinstance(command, kind)]


def failed(api: Api, store: Store, tenant: str, endpoint: str, payload: object) -> str:
    """A message on the log whose delivery has failed; the delivery's id."""
    message_id = f"m-{len(published(api))}"
    body = {"tenant": tenant, "event_type": "meeting.failed", "payload": payload, "id": message_id}
    assert api.ask("POST", "/v1/messages", body).status_code == 202
    record_, _ = next(found for found in published(api) if found[1].id == message_id)
    ended = replace(
        attempt(record_.offset, endpoint, 1, "failed"),
        delivery_id=delivery_id(TOPIC, record_.partition, record_.offset, endpoint),
        tenant=tenant,
        message_id=message_id,
        source_partition=record_.partition,
        source_offset=record_.offset,
    )
    rows = finished_rows(record("attempts", record_.offset, ended, partition=record_.partition), ended)
    for table, of_table in rows.items():
        store.history.insert(table, columns(table, of_table), f"{ended.delivery_id}{table}")
    return ended.delivery_id


@pytest.fixture
def told(history: History) -> Iterator[Api]:
    """An API with a history."""
    with running(make_context(), history=history) as running_api:
        yield running_api


RETRY = f"{PATH}/retry"


@pytest.mark.integration
def test_one_failed_delivery_is_retried_by_its_id(told: Api, store: Store) -> None:
    """One command with the message's coordinates; a repeat under one key is the same command."""
    key = key_of(told, "one")
    endpoint = call(told, key, "POST", {"webhook_url": URL}).json()["id"]
    wanted = failed(told, store, "one", endpoint, {"bot_id": "b1"})
    for _ in range(2):
        asked = Ask(
            "POST",
            RETRY,
            {"delivery_id": wanted},
            headers={HEADER: key, "Authorization": "", "Idempotency-Key": "k"},
        )
        answer = told.together(asked)[0]
        assert (answer.status_code, answer.json()["deliveries"][0]["origin"]) == (202, wanted)
    first, second = commands(told, Resend)
    assert first.command_id == second.command_id
    (message,) = [record for record, message in published(told) if message.id == first.message_id]
    assert (first.source_partition, first.source_offset) == (message.partition, message.offset)
    assert (first.tenant, first.endpoint_id, first.delivery_id) == ("one", endpoint, wanted)
    assert call(told, key_of(told, "stranger"), "POST", {"delivery_id": wanted}, RETRY).status_code == 404


@pytest.mark.integration
def test_the_failed_deliveries_of_a_bot_are_retried(told: Api, store: Store) -> None:
    """Those whose payload names it, at this account's enabled endpoints, and no others."""
    key, other = key_of(told, "bots"), key_of(told, "bots2")
    endpoint = call(told, key, "POST", {"webhook_url": URL}).json()["id"]
    theirs = call(told, other, "POST", {"webhook_url": URL}).json()["id"]
    wanted = {failed(told, store, "bots", endpoint, {"bot_id": "b1", "n": n}) for n in range(2)}
    failed(told, store, "bots", endpoint, {"bot_id": "b2"})
    failed(told, store, "bots", endpoint, ["b1"])
    failed(told, store, "bots2", theirs, {"bot_id": "b1"})
    answer = call(told, key, "POST", {"bot_id": "b1"}, RETRY)
    assert answer.status_code == 202
    assert {each["origin"] for each in answer.json()["deliveries"]} == wanted
    assert answer.json()["is_complete"] is True
    assert {command.delivery_id for command in commands(told, Resend)} == wanted


@pytest.mark.integration
def test_what_was_delivered_since_is_not_sent_again(told: Api, store: Store) -> None:
    """Nor what is on its way; what failed again is, once, from its newest failure."""
    key = key_of(told, "again")
    endpoint = call(told, key, "POST", {"webhook_url": URL}).json()["id"]
    other = call(told, key, "POST", {"webhook_url": URL + "/other"}).json()["id"]
    first = [failed(told, store, "again", endpoint, {"bot_id": "b1", "n": n}) for n in range(4)]
    for was, status in zip(first, ("delivered", "pending", "failed"), strict=False):
        retried(store, was, endpoint, status)
    retried(store, first[3], other, "delivered")  # another endpoint's is no answer to this one's
    answer = call(told, key, "POST", {"bot_id": "b1"}, RETRY)
    assert {each["origin"] for each in answer.json()["deliveries"]} == {f"again-{first[2]}", first[3]}
    assert len(answer.json()["deliveries"]) == 2


def retried(store: Store, delivery: str, endpoint: str, status: str) -> None:
    """A delivery of the same message, made a second later."""
    names = [
        name
        for (name,) in store.client.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'deliveries'"
        ).result_rows
    ]
    made = {"delivery_id": f"'again-{delivery}'", "endpoint_id": f"'{endpoint}'", "status": f"'{status}'"}
    made |= {"updated_at": "updated_at + 1", "origin": f"'{delivery}'"}
    values = ", ".join(made.get(name, name) for name in names)
    of_delivery = f"FROM deliveries FINAL WHERE delivery_id = '{delivery}'"
    store.client.command(f"INSERT INTO deliveries ({', '.join(names)}) SELECT {values} {of_delivery}")


@pytest.mark.integration
def test_without_a_name_all_that_failed_is_replayed(told: Api) -> None:
    """A replay of the account's failures, with or without a body; 409 while nothing could be sent."""
    bodies: tuple[object, ...] = (None, {})
    key, stop, is_ready = key_of(told, "all"), threading.Event(), threading.Event()
    assert call(told, key, "POST", None, RETRY).status_code == 409
    call(told, key, "POST", {"webhook_url": URL})
    group = threading.Thread(target=replayer.run, args=(told.context, stop, is_ready.set))
    group.start()
    try:
        assert is_ready.wait(LIMIT_S)
        answers = [call(told, key, "POST", body, RETRY) for body in bodies]
    finally:
        stop.set()
        group.join(LIMIT_S)
    started = commands(told, StartReplay)
    assert [answer.json()["replay_id"] for answer in answers] == [command.replay_id for command in started]
    assert {(c.tenant, c.endpoint_id, c.only, c.since) for c in started} == {("all", "", "failed", 0)}
    both = call(told, key, "POST", {"delivery_id": "d", "bot_id": "b"}, RETRY)
    assert both.status_code == 422


@pytest.mark.integration
def test_what_has_not_failed_is_not_retried(told: Api, store: Store) -> None:
    """409 for a delivery that stands otherwise, or whose endpoint is disabled."""
    key = key_of(told, "state")
    endpoint = call(told, key, "POST", {"webhook_url": URL}).json()["id"]
    wanted = failed(told, store, "state", endpoint, {})
    call(told, key, "POST", {"webhook_url": URL, "enabled": False})
    disabled = call(told, key, "POST", {"delivery_id": wanted}, RETRY)
    assert (disabled.status_code, "disabled" in disabled.json()["detail"]) == (409, True)
    call(told, key, "POST", {"webhook_url": URL, "enabled": True})
    store.client.command(
        "ALTER TABLE deliveries UPDATE status = 'pending' WHERE 1 SETTINGS mutations_sync = 2"
    )
    pending = call(told, key, "POST", {"delivery_id": wanted}, RETRY)
    assert (pending.status_code, "pending" in pending.json()["detail"]) == (409, True)
    assert commands(told, Resend) == []
