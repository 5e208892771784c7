"""Notices become mail: each once, in the end, whatever the mail server does; and its words."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.notice import Notice, NoticeKind, subject, text
from engine.ports import Output
from engine.runtime.health.mailing import REFUSALS_MAX, WAITING_MAX, Mailing
from engine.runtime.mail import Mail, MailError, RefusedMailError
from tests.pipeline.health_scene import Scene
from tests.pipeline.mailing_scene import AT, Inline, Post, Taking, a_notice, away, counted, here
from tests.pipeline.world import TENANT

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
    mailing = Mailing(scene.context(), server if has_server else None, Inline(), {})
    scene.append("notices", "ep_1", a_notice(1))
    for _ in range(4):
        mailing.step()
        scene.clock.us += 1_000_000
    mailing.close()
    later = Mailing(scene.context(), server, Inline(), {})
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
    other = Mailing(post.scene.context("1"), second, Inline(), {})
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
        mailing = Mailing(scene.context(), send, pool, {})
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
                post.mailing = Mailing(post.scene.context(), post.server, Inline(), post.endpoints)
            case "away":
                post.server.says = away
            case "back":
                post.server.says = here
    post.server.says = here
    post.work(700)
    times = Counter(post.server.ids)
    assert set(times) == {a_notice(n).id for n in range(told)}
    assert sum(times.values()) - len(times) <= kills


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
