"""Notices become mail and operational webhooks: each once, in the end, whatever the mail server does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import ParamSpec, TypeVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from engine.core.model import MessagePublished
from engine.core.notice import EVENT_TYPES, Notice, NoticeKind, notice_id, subject, text
from engine.ports import Output
from engine.runtime.health.mailing import REFUSALS_MAX, WAITING_MAX, Mailing
from engine.runtime.health.operations import Operations
from engine.runtime.mail import Mail, MailError, RefusedMailError
from engine.runtime.memory import MemoryConsumer
from schemas import headers
from tests.pipeline.health_scene import Scene
from tests.pipeline.world import CODEC, TENANT

P = ParamSpec("P")
R = TypeVar("R")
AT = 1_760_000_000_000_000


def a_notice(number: int, kind: NoticeKind = "warned", **more: object) -> Notice:
    """A notice; its number tells it from others."""
    given: dict[str, object] = {
        "url": "https://hooks.example.com/in",
        "since": AT - 1_234_567,
        "failures": 41,
        "error_classes": {"timeout": 1, "http_5xx": 40},
        "error_class": "http_5xx",
        "status_code": 502,
        "reason": "gone",
        **more,
    }
    id = notice_id(kind, f"ep_{number}", number)
    return Notice(id, kind, TENANT, f"ep_{number}", AT, **given)  # type: ignore[arg-type]


def away(mail: Mail) -> MailError | None:
    """What a server that is away says."""
    return MailError("away")


def here(mail: Mail) -> MailError | None:
    """What one says that takes everything."""
    return None


@dataclass(slots=True)
class Taking:
    """A mail server: what it took, and what it says to each mail."""

    taken: list[Mail] = field(default_factory=list)
    tried: int = 0
    says: Callable[[Mail], MailError | None] = here

    def __call__(self, mail: Mail) -> None:
        """Take it or not."""
        self.tried += 1
        if (error := self.says(mail)) is not None:
            raise error
        self.taken.append(mail)

    @property
    def ids(self) -> list[str]:
        """Notices whose mail was taken."""
        return [mail.id for mail in self.taken]


class Inline(Executor):
    """Does what it is given at once."""

    def submit(self, call: Callable[P, R], /, *given: P.args, **named: P.kwargs) -> Future[R]:
        """Do it."""
        done: Future[R] = Future()
        try:
            done.set_result(call(*given, **named))
        except MailError as error:
            done.set_exception(error)
        return done


class Post:
    """Mailing on a log in memory."""

    def __init__(self, **more: object) -> None:
        self.scene = Scene(0, mail_to="ops@platform.example", **more)
        self.server = Taking()
        self.mailing = Mailing(self.scene.context(), self.server, Inline())

    def tell(self, *notices: Notice) -> None:
        """Put notices on the log."""
        for notice in notices:
            self.scene.append("notices", notice.endpoint_id, notice)

    def work(self, seconds: float) -> None:
        """Let it work for so long."""
        for _ in range(int(seconds * 4)):
            self.mailing.step()
            self.scene.clock.us += 250_000

    def kill(self) -> None:
        """SIGKILL, and a new process."""
        consumer = self.mailing.member.consumer
        assert isinstance(consumer, MemoryConsumer)
        consumer.kill()
        self.mailing = Mailing(self.scene.context(), self.server, Inline())


def counted(name: str, **labels: str) -> float:
    """A metric."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


# -- mail -------------------------------------------------------------------------------


def test_each_notice_is_mailed_once() -> None:
    """To the platform; a restart repeats nothing that was marked."""
    post = Post()
    told = [a_notice(n) for n in range(5)]
    post.tell(*told)
    post.work(5)
    post.kill()
    post.work(5)
    assert sorted(post.server.ids) == sorted(notice.id for notice in told)
    assert {mail.to for mail in post.server.taken} == {("ops@platform.example",)}
    assert {mail.subject for mail in post.server.taken} == {subject(notice) for notice in told}


def test_a_tenant_with_an_address_gets_its_own() -> None:
    """And the platform gets the others'."""
    post = Post(mail_tenants=(f"{TENANT}=ops@acme.example",))
    post.tell(a_notice(1), Notice("ntc_2", "warned", "globex", "ep_9", AT))
    post.work(3)
    assert {mail.id: mail.to for mail in post.server.taken} == {
        a_notice(1).id: ("ops@acme.example",),
        "ntc_2": ("ops@platform.example",),
    }


@pytest.mark.parametrize("has_server", [True, False])
def test_without_a_server_or_an_address_notices_are_passed_by(*, has_server: bool) -> None:
    """So that mail which is set up later does not begin with last month's."""
    scene = Scene(0)
    server = Taking()
    mailing = Mailing(scene.context(), server if has_server else None, Inline())
    scene.append("notices", "ep_1", a_notice(1))
    for _ in range(4):
        mailing.step()
        scene.clock.us += 1_000_000
    mailing.close()
    later = Mailing(scene.context(), server, Inline())
    later.step()
    assert server.tried == 0


def test_a_server_that_is_away_is_tried_again_less_and_less_often() -> None:
    """All is sent when it is back; meanwhile one try at a time, and a metric."""
    post = Post()
    before = counted("hooklog_mail_errors_total")
    post.server.says = away
    post.tell(*(a_notice(n) for n in range(3)))
    post.work(600)
    assert 5 <= post.server.tried <= 10
    assert counted("hooklog_mail_errors_total") == before + post.server.tried
    post.server.says = here
    post.work(400)
    assert sorted(post.server.ids) == sorted(a_notice(n).id for n in range(3))


def test_one_address_that_is_refused_holds_up_no_other() -> None:
    """It is tried a few times, then given up with a log line and a metric: it stays on `notices`."""
    post = Post(mail_tenants=(f"{TENANT}=gone@acme.example",))
    before = counted("hooklog_notifications_total", kind="warned", result="given_up")

    def says(mail: Mail) -> MailError | None:
        return RefusedMailError("550") if mail.to == ("gone@acme.example",) else None

    post.server.says = says
    post.tell(a_notice(1), Notice("ntc_2", "warned", "globex", "ep_1", AT))
    post.work(5)
    assert post.server.ids == ["ntc_2"]
    post.work(600)
    assert post.server.tried == REFUSALS_MAX + 1
    assert counted("hooklog_notifications_total", kind="warned", result="given_up") == before + 1
    post.kill()
    post.work(5)
    assert post.server.tried == REFUSALS_MAX + 1


def test_what_waits_in_memory_is_bounded() -> None:
    """The rest waits on the log, and is sent too."""
    post = Post()
    post.server.says = away
    count = WAITING_MAX * 4
    post.tell(*(a_notice(n) for n in range(count)))
    post.work(10)
    assert len(post.mailing._waiting) <= WAITING_MAX * 2
    post.server.says = here
    post.work(count)
    assert len(set(post.server.ids)) == len(post.server.ids) == count


def test_a_notice_that_nobody_can_decode_is_passed_by() -> None:
    """What follows it is sent."""
    post = Post()
    for partition in (0, 1):
        post.scene.log.append(Output("notices", partition, b"ep", b"no record at all"))
    post.tell(a_notice(1))
    post.work(3)
    assert post.server.ids == [a_notice(1).id]


def test_what_waits_survives_a_crash() -> None:
    """Its offset is not committed, whatever is committed after it."""
    post = Post()
    post.server.says = away
    post.tell(*(a_notice(n) for n in range(4)))
    post.work(3)
    post.kill()
    post.server.says = here
    post.work(10)
    assert sorted(post.server.ids) == sorted(a_notice(n).id for n in range(4))


def test_what_waits_goes_with_its_partition() -> None:
    """Who has given a partition up sends none of its mail: the new owner does."""
    post, second = Post(), Taking()
    post.server.says = away
    post.tell(*(a_notice(n) for n in range(12)))
    post.work(1)
    other = Mailing(post.scene.context("1"), second, Inline())
    post.work(1)
    post.server.says = here
    for _ in range(200):
        post.work(0.5)
        other.step()
    assert sorted(post.server.ids + second.ids) == sorted(a_notice(n).id for n in range(12))
    assert second.ids


def test_no_mail_is_sent_before_the_mark_of_the_last_one_is_on_the_log() -> None:
    """Else a crash could repeat many."""
    post = Post()
    post.tell(*(a_notice(n) for n in range(10)))
    post.work(0.25)
    post.work(0.25)
    sent = post.server.tried
    post.scene.log.refuses_commits = True
    post.work(20)
    assert post.server.tried <= sent + 1
    post.scene.log.refuses_commits = False
    post.work(10)
    assert sorted(post.server.ids) == sorted(a_notice(n).id for n in range(10))


def test_a_slow_server_holds_nothing_up() -> None:
    """Steps return at once, the lease is renewed; the mail is marked when the answer comes."""
    scene, answers = Scene(0, mail_to="ops@platform.example"), Event()

    def send(mail: Mail) -> None:
        assert answers.wait(60)

    with ThreadPoolExecutor(1) as pool:
        mailing = Mailing(scene.context(), send, pool)
        scene.append("notices", "ep_1", a_notice(1))
        for _ in range(100):
            mailing.step()
            scene.clock.us += 250_000
        assert scene.clock.monotonic() - mailing.member.consumer.lease < 1
        assert len(mailing._waiting) == 1
        answers.set()
        mailing.close()
    positions = scene.log._groups["mail"].positions
    assert sum(position.offset for position in positions.values()) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(("tell", "work", "kill", "away", "back", "leave")), max_size=40))
def test_no_mail_is_lost_and_a_crash_repeats_at_most_one(actions: list[str]) -> None:
    """Whatever happens when: one that was sent as the process ended may come twice, no other."""
    post, told, kills = Post(), 0, 0
    for action in actions:
        match action:
            case "tell":
                post.tell(a_notice(told))
                told += 1
            case "work":
                post.work(1)
            case "kill":
                post.kill()
                kills += 1
            case "leave":
                post.mailing.close()
                post.mailing = Mailing(post.scene.context(), post.server, Inline())
            case "away":
                post.server.says = away
            case "back":
                post.server.says = here
    post.server.says = here
    post.work(700)
    times = Counter(post.server.ids)
    assert set(times) == {a_notice(n).id for n in range(told)}
    assert sum(times.values()) - len(times) <= kills


# -- operational webhooks ---------------------------------------------------------------


def publish(scene: Scene, seconds: int = 4) -> list[MessagePublished]:
    """Let a new process work for so long, then kill it; everything on `messages`."""
    operations = Operations(scene.context())
    for _ in range(seconds):
        operations.step()
        scene.clock.us += 1_000_000
    consumer = operations.member.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.kill()
    return [CODEC.decode_as(MessagePublished, record.value) for record in scene.records("messages")]


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_a_notice_is_published_as_a_message(kind: NoticeKind) -> None:
    """Under its own id, for the platform's tenant, with everything that a mail tells."""
    scene = Scene(0, operations_tenant="platform")
    notice = a_notice(1, kind, exhausted=7)
    scene.append("notices", "ep_1", notice)
    (message,) = publish(scene)
    assert (message.tenant, message.id, message.event_type) == ("platform", notice.id, EVENT_TYPES[kind])
    payload = orjson.loads(message.payload)
    assert (payload["tenant"], payload["endpoint_id"], payload["exhausted"]) == (TENANT, "ep_1", 7)
    assert payload["likely_cause"] == "the receiver, or a proxy before it, has a fault"
    assert payload["since"] == "2025-10-09T08:53:18.765433Z"
    (record,) = scene.records("messages")
    assert record.headers[headers.CAUSE].startswith(b"notices:")


def test_a_repeat_after_a_crash_has_the_same_id() -> None:
    """The router drops it; what was committed is not repeated at all."""
    scene = Scene(0, operations_tenant="platform")
    scene.append("notices", "ep_1", a_notice(1))
    publish(scene, 2)
    assert {message.id for message in publish(scene)} == {a_notice(1).id}
    count = len(publish(scene))
    assert len(publish(scene)) == count <= 2


def test_a_crash_before_the_message_is_acknowledged_loses_nothing() -> None:
    """Nothing is committed before it is on `messages`."""
    scene = Scene(0, operations_tenant="platform")
    scene.append("notices", "ep_1", a_notice(1))
    operations = Operations(scene.context())
    scene.clock.us += 2_000_000
    operations.step()
    consumer = operations.member.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.kill()
    assert {message.id for message in publish(scene)} == {a_notice(1).id}


def test_nobody_is_told_by_webhook_of_the_endpoint_that_the_webhook_goes_to() -> None:
    """Nor is anything published where no tenant is named."""
    scene = Scene(0, operations_tenant=TENANT)
    scene.append("notices", "ep_1", a_notice(1))
    assert publish(scene) == []
    silent = Scene(0)
    silent.append("notices", "ep_1", a_notice(1))
    assert publish(silent) == []


# -- the words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("exhausted", "7 deliveries to this endpoint failed for good"),
        ("exhausted", "Likely cause: the receiver, or a proxy before it, has a fault."),
        ("exhausted", "http_5xx 40, timeout 1"),
        ("exhausted", "hooklog replays start --endpoint ep_1 --since 2025-10-09T08:53:18Z --only failed"),
        ("warned", "41 in all"),
        ("warned", "It will be disabled at 2025-10-09T08:53:21Z"),
        ("warned", "GET /v1/endpoints/ep_1/health"),
        ("disabled", "wants no more requests"),
        ("disabled", "POST /v1/endpoints/ep_1/enable"),
        ("disabled", "--only missed"),
        ("recovered", "has succeeded at 2025-10-09T08:53:20Z"),
    ],
)
def test_a_mail_says_what_happened_why_and_what_to_do(kind: NoticeKind, said: str) -> None:
    """In plain words, with commands that can be copied."""
    told = text(a_notice(1, kind, exhausted=7, disable_at=AT + 1_000_000, succeeded_at=AT))
    assert said in told
    assert "https://hooks.example.com/in" in told


def test_a_subject_is_one_line_whatever_is_in_it() -> None:
    """Nobody writes headers of our mail."""
    notice = Notice("ntc_1", "warned", "acme\r\nBcc: all@example.com", "ep\n1", AT)
    assert subject(notice) == "[hooklog] acme Bcc: all@example.com: endpoint ep 1: keeps failing"
