"""Resends, test sends and replays over the API, with every group on a log in memory and a real receiver."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from engine.core.model import AttemptFinished
from engine.ports import Output
from engine.runtime.memory import MemoryLog
from engine.runtime.replaying import running as running_replays
from tests.integration.api_fixtures import Api
from tests.integration.history_fixtures import Store
from tests.integration.whole import (
    Receiver,
    api_with_groups,
    attempts,
    endpoint,
    ok,
    project,
    publish,
    receiver,
    wait_attempts,
    wait_replay,
)

__all__ = ["api_with_groups", "receiver"]
pytestmark = pytest.mark.integration


@pytest.fixture
def api(api_with_groups: Api) -> Api:
    """The only one here."""
    return api_with_groups


def test_a_test_send_answers_what_the_endpoint_answered(api: Api, receiver: Receiver) -> None:
    """Success, failure, a disabled endpoint, a type of the catalogue with its example."""
    made = endpoint(api, receiver, profile="bedrud")
    path = f"/v1/endpoints/{made}/test"
    answer = ok(api.ask("POST", path))
    assert (answer["status"], answer["http_status"], answer["error_class"]) == ("success", 200, None)
    assert b'"ping"' in receiver.bodies[-1]
    receiver.status = 503
    ok(api.ask("POST", f"/v1/endpoints/{made}/disable"))
    answer = ok(api.ask("POST", path, {"event_type": "ping"}))
    assert (answer["status"], answer["http_status"]) == ("failure", 503)
    assert api.ask("POST", path, {"event_type": "room.ended"}).status_code == 422
    example = {"description": "x", "example": {"room": "kitchen"}}
    ok(api.ask("PUT", "/v1/event-types/room.ended", example))
    ok(api.ask("POST", path, {"event_type": "room.ended"}))
    assert b'"kitchen"' in receiver.bodies[-1]
    assert [a.trigger for a in attempts(api)] == ["test"] * 3


def test_a_repeated_test_send_is_one_request(api: Api, receiver: Receiver) -> None:
    """The same Idempotency-Key answers the same attempt."""
    path = f"/v1/endpoints/{endpoint(api, receiver)}/test"
    first = ok(api.ask("POST", path, idempotency_key="k"))
    assert ok(api.ask("POST", path, idempotency_key="k")) == first
    assert len(receiver.bodies) == 1


def test_a_resend_is_a_new_delivery_with_the_same_body(api: Api, receiver: Receiver, store: Store) -> None:
    """202 with its id; the same key makes no second one; an unknown one is 404, a lost body 410."""
    receiver.status = 500
    endpoint(api, receiver)
    publish(api, 1)
    (old,) = wait_attempts(api, 1)
    project(api, store)
    receiver.status = 200
    path = f"/v1/deliveries/{old.delivery_id}/resend"
    answer = ok(api.ask("POST", path, idempotency_key="k"), 202)
    assert ok(api.ask("POST", path, idempotency_key="k"), 202) == answer
    (new,) = wait_attempts(api, 1, "resend")
    assert (answer["id"], answer["origin"]) == (new.delivery_id, old.delivery_id)
    assert (new.origin, new.decision) == (old.delivery_id, "delivered")
    assert receiver.bodies[0] == receiver.bodies[1]
    assert len(receiver.bodies) == 2
    assert api.ask("POST", "/v1/deliveries/dlv_none/resend").status_code == 404


def test_a_body_past_retention_is_410(api: Api, receiver: Receiver, store: Store) -> None:
    """Neither message nor dead letter is there: said at once, and nothing is written."""
    made = endpoint(api, receiver)
    publish(api, 1)
    (old,) = wait_attempts(api, 1)
    gone = api.context.codec.encode(
        AttemptFinished(
            *("dlv_gone", "acme", made, "other", "room.ended", 1, "scheduled", "", old.accepted_at),
            *(old.source_partition, 10_000, old.attempted_at, 1, "failure", 500, "http_5xx", "", "failed"),
            *("http_5xx", 0, 0, b"", "w"),
            delivery=b"",
        )
    )
    log = api.context.log
    assert isinstance(log, MemoryLog)
    log.append(Output("attempts", 0, made.encode(), gone, {}))
    project(api, store)
    answer = api.ask("POST", "/v1/deliveries/dlv_gone/resend")
    assert answer.status_code == 410, answer.text
    assert "retention" in answer.json()["detail"]


def since(seconds: float = 3_600) -> str:
    """A time in the past."""
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat()


def test_a_replay_counts_runs_and_is_shown(api: Api, receiver: Receiver) -> None:
    """Dry run, start, progress; the same key starts no second one, another body under it is refused."""
    made = endpoint(api, receiver)
    publish(api, 5)
    publish(api, 2, "room.left")
    wait_attempts(api, 7)
    body = {"endpoint": made, "since": since(), "only": "all", "rate": 100}
    counted = ok(api.ask("POST", "/v1/replays", {**body, "dry_run": True}))
    assert counted == {
        "deliveries": 7,
        "by_event_type": {"room.ended": 5, "room.left": 2},
        "missing": 0,
        "estimated_seconds": 0.07,
    }
    assert ok(api.ask("GET", "/v1/replays"))["data"] == []
    started = ok(api.ask("POST", "/v1/replays", body, idempotency_key="k"), 202)
    assert ok(api.ask("POST", "/v1/replays", body, idempotency_key="k"), 202)["id"] == started["id"]
    other = api.ask("POST", "/v1/replays", {**body, "only": "missed"}, idempotency_key="k")
    assert other.status_code == 422
    ended = wait_replay(api, started["id"])
    assert (ended["deliveries"], ended["planned"], ended["reason"]) == (7, 7, "")
    assert len(wait_attempts(api, 7, "replay")) == 7
    assert len(receiver.bodies) == 14
    assert ok(api.ask("GET", "/v1/replays?tenant=acme"))["data"] == [ended]


def test_a_replay_is_cancelled(api: Api, receiver: Receiver) -> None:
    """Its end is in the answer; an ended one cannot be cancelled."""
    made = endpoint(api, receiver)
    publish(api, 5)
    wait_attempts(api, 5)
    body = {"endpoint": made, "since": since(), "only": "all", "rate": 0.01}
    path = f"/v1/replays/{ok(api.ask('POST', '/v1/replays', body), 202)['id']}"
    assert ok(api.ask("POST", f"{path}/cancel"))["status"] == "cancelled"
    assert ok(api.ask("POST", f"{path}/cancel"))["status"] == "cancelled"
    assert len(wait_attempts(api, 0, "replay")) < 5


def test_a_tenant_has_only_so_many_replays(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409, and what to do; when one was cancelled there is room."""
    monkeypatch.setattr(running_replays, "REPLAYS_MAX", 1)
    made = endpoint(api, receiver)
    publish(api, 3)
    wait_attempts(api, 3)
    body = {"endpoint": made, "since": since(), "only": "all", "rate": 0.001}
    first = ok(api.ask("POST", "/v1/replays", body), 202)["id"]
    refused = api.ask("POST", "/v1/replays", body)
    assert (refused.status_code, "cancel one" in refused.json()["detail"]) == (409, True)
    ok(api.ask("POST", f"/v1/replays/{first}/cancel"))
    ok(api.ask("POST", "/v1/replays", body), 202)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"endpoint": "ep_none"}, 404),
        ({"endpoint": None}, 422),
        ({"only": "some"}, 422),
        ({"since": "yesterday"}, 422),
        ({"rate": 0}, 422),
        ({"until": since(100_000)}, 422),
        ({"tenant": "nobody", "endpoint": None}, 409),
        ({"event_types": []}, 422),
    ],
)
def test_bad_input_starts_nothing(
    api: Api, receiver: Receiver, changes: dict[str, object], status: int
) -> None:
    """A clear 4xx, and no replay."""
    body = {"endpoint": endpoint(api, receiver), "since": since(), "only": "all"} | changes
    answer = api.ask("POST", "/v1/replays", body)
    assert answer.status_code == status, answer.text
    assert ok(api.ask("GET", "/v1/replays"))["data"] == []


def test_a_tenants_key_reaches_its_own_only(api: Api, receiver: Receiver, store: Store) -> None:
    """Another's delivery, endpoint and replay do not exist; scopes are asked for."""
    made = endpoint(api, receiver)
    publish(api, 1)
    (old,) = wait_attempts(api, 1)
    project(api, store)
    body = {"endpoint": made, "since": since(), "only": "all"}
    replay = ok(api.ask("POST", "/v1/replays", body), 202)["id"]
    ok(api.ask("POST", "/v1/tenants", {"id": "other", "name": "Other"}), 201)
    stranger, reader = api.new_key("manage", "read", tenant="other"), api.new_key("read", tenant="acme")
    asked = [
        ("POST", f"/v1/deliveries/{old.delivery_id}/resend", None),
        ("POST", f"/v1/endpoints/{made}/test", None),
        ("POST", "/v1/replays", body),
        ("GET", f"/v1/replays/{replay}", None),
        ("POST", f"/v1/replays/{replay}/cancel", None),
    ]
    assert [api.ask_as(stranger, *each).status_code for each in asked] == [404] * 5
    assert [api.ask_as(reader, *each).status_code for each in asked] == [403, 403, 403, 200, 403]
    assert api.ask_as(stranger, "GET", "/v1/replays").json()["data"] == []
