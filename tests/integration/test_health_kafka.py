"""health on Kafka: three processes, two of them killed, a real mail server; every notice once."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from email.message import Message
from pathlib import Path

import pytest

from engine.core.change import EndpointDisabled, EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import AttemptFinished, Decision, MessagePublished
from engine.core.notice import Notice
from engine.core.routing import partition_of
from engine.dev.process import wait_until
from engine.ports import Output
from engine.runtime.clock import SystemClock
from schemas import headers
from tests.integration.groups import CODEC, LIMIT_S, TENANT, Groups
from tests.integration.history_fixtures import attempt
from tests.runtime.mail_server import mail_server

pytestmark = pytest.mark.integration

NAMES = [f"ep_{n}" for n in range(12)]
PROCESSES = ("health", "health.1", "health.2")


def finish(groups: Groups, decision: Decision, count: int) -> None:
    """An attempt at each endpoint ends now."""
    producer, now = groups.log.producer(), SystemClock().now()
    for n, name in enumerate(NAMES):
        made = replace(attempt(n, name, count, decision), attempted_at=now, endpoint_version=1)
        found = headers.of_attempt(made, headers.cause("deliveries", 0, n))
        at = partition_of(name, groups.settings.partitions)
        producer.send(Output("attempts", at, name.encode(), CODEC.encode(made), found), lambda offset: None)
    assert isinstance(made, AttemptFinished)
    assert producer.flush(LIMIT_S)


def told(groups: Groups) -> Counter[tuple[str, str]]:
    """How often each endpoint's people are told what, on the log."""
    notices = [CODEC.decode_as(Notice, record.value) for record in groups.records("notices")]
    assert len({notice.id for notice in notices}) == len(notices)
    return Counter((notice.kind, notice.endpoint_id) for notice in notices)


def test_notices_are_neither_lost_nor_doubled(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Warned, recovered and disabled: on the log once each, mailed and published once each."""
    with mail_server(tmp_path) as server:
        mail = {f"HOOKLOG_{name.upper()}": str(value) for name, value in server.settings().items()}
        own = {"WARN_AFTER": "1s", "DISABLE_AFTER": "none", "DISABLE_APART": "0s", "OPERATIONS_TENANT": "ops"}
        more = mail | {f"HOOKLOG_{name}": value for name, value in own.items()}
        groups = Groups(kafka, prefix, tmp_path, **more)
        try:
            groups.start(*PROCESSES)
            for name in NAMES:
                settings = EndpointSettings(f"https://hooks.example.com/{name}")
                groups.write("endpoints", TENANT, Endpoint(name, TENANT, settings, version=1))
            finish(groups, "retry", 1)
            groups.supervisor.signal("health", signal.SIGKILL)
            wanted = Counter({("warned", name): 1 for name in NAMES})
            assert wait_until(lambda: told(groups) == wanted, LIMIT_S, 0.25), told(groups)
            groups.supervisor.signal("health.1", signal.SIGKILL)
            finish(groups, "delivered", 2)
            fact = EndpointDisabled("c", TENANT, "health", SystemClock().now(), NAMES[0], 2, "gone")
            groups.write("changes", TENANT, fact)
            wanted += Counter({("recovered", name): 1 for name in NAMES}) + Counter([("disabled", NAMES[0])])
            assert wait_until(lambda: told(groups) == wanted, LIMIT_S, 0.25), told(groups)
            ids = {CODEC.decode_as(Notice, r.value).id for r in groups.records("notices")}
            mails = server.received.mails
            assert wait_until(lambda: set(mailed(mails)) == ids, LIMIT_S, 0.25), ids - set(mailed(mails))
            assert mailed(mails).total() - len(ids) <= 2, "a kill may repeat the one that was just sent"
            assert wait_until(lambda: published(groups) == ids, LIMIT_S, 0.25)
        finally:
            groups.stop()


def mailed(mails: Sequence[Message]) -> Counter[str]:
    """How often each notice, by its id, has come by mail."""
    return Counter(str(mail["Message-ID"]).strip("<>").partition("@")[0] for mail in tuple(mails))


def published(groups: Groups) -> set[str]:
    """Ids of the operational webhooks' messages."""
    found = [CODEC.decode_as(MessagePublished, record.value) for record in groups.records("messages")]
    assert {message.tenant for message in found} <= {"ops"}
    return {message.id for message in found}
