"""A mail that the server does not take holds up no other, and a restart repeats none of those after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.notice import Notice
from engine.runtime.health.mailing import PUT_OFFS_MAX, Mark, read_mark
from engine.runtime.mail import Mail, MailError, PutOffMailError, RefusedMailError
from engine.runtime.owned import METADATA_MAX
from tests.pipeline.mailing_scene import AT, Post, counted, here
from tests.pipeline.world import TENANT

FULL = "full@acme.example"


def a_post() -> Post:
    """The tenant's own mailbox takes nothing now; the platform's takes all."""
    post = Post(mail_tenants=(f"{TENANT}={FULL}",))
    post.server.says = puts_off
    return post


def puts_off(mail: Mail) -> MailError | None:
    """A full mailbox."""
    return PutOffMailError("452 mailbox full") if mail.to == (FULL,) else None


def refuses(mail: Mail) -> MailError | None:
    """A mailbox that is no more."""
    return RefusedMailError("550 no such mailbox") if mail.to == (FULL,) else None


def to_full(number: int) -> Notice:
    """A notice for the mailbox that is full, all on one partition."""
    return Notice(f"ntc_full_{number}", "warned", TENANT, "ep_1", AT)


def to_other(number: int) -> Notice:
    """One for the platform, on the same partition."""
    return Notice(f"ntc_{number}", "warned", "globex", "ep_1", AT)


def test_a_mailbox_that_is_full_holds_up_no_other() -> None:
    """Tried less and less often, it leaves the others their turn."""
    post = a_post()
    post.tell(to_full(1), *(to_other(n) for n in range(20)))
    post.work(20)
    assert post.server.ids == [to_other(n).id for n in range(20)]
    post.work(600)
    assert 5 <= post.server.tried - 20 <= 10
    assert counted("hooklog_mails_waiting") == 1
    post.server.says = here
    post.work(310)
    assert post.server.ids[20:] == [to_full(1).id]
    assert counted("hooklog_mails_waiting") == 0


@pytest.mark.parametrize("says", [puts_off, refuses])
def test_a_crash_repeats_no_mail_after_one_that_waits(says: Callable[[Mail], MailError | None]) -> None:
    """The commit says which wait; crashes in a row, before all was read again, change nothing."""
    post = a_post()
    post.server.says = says
    post.tell(to_full(1), to_other(1), to_full(2), to_other(2), to_other(3))
    post.work(10)
    sent = [to_other(n).id for n in (1, 2, 3)]
    assert post.server.ids == sent
    for _ in range(4):
        post.kill()
        post.work(0.5)
    assert post.server.ids == sent
    post.server.says = here
    post.work(700)
    assert Counter(post.server.ids) == Counter([*sent, to_full(1).id, to_full(2).id])


def test_a_crash_before_all_was_read_again_forgets_nothing() -> None:
    """What the owner before the last was done with is still done, though the last one came less far."""
    post = a_post()
    post.tell(to_full(1), *(to_other(n) for n in range(8)))
    post.work(10)
    post.kill()
    member = post.mailing.member
    for _ in member.each(member.poll(0, 1), post.mailing._take):
        pass
    post.mailing._commit(wait=True)
    marks = map(read_mark, post.scene.log._groups["mail"].positions.values())
    assert [mark for mark in marks if mark.next] == [Mark(9, frozenset({0}))]


def test_a_mail_that_is_put_off_for_a_day_is_given_up() -> None:
    """With a metric, and its partition's commit goes on."""
    post = a_post()
    before = counted("hooklog_notifications_total", kind="warned", result="given_up")
    post.tell(to_full(1))
    post.work(PUT_OFFS_MAX * 302)
    assert post.server.tried == PUT_OFFS_MAX
    assert counted("hooklog_notifications_total", kind="warned", result="given_up") == before + 1
    positions = post.scene.log._groups["mail"].positions
    assert sum(position.offset for position in positions.values()) == 1


@given(
    st.integers(0, 10**12),
    st.sets(st.integers(0, 10**9), max_size=1200),
    st.integers(1, 10**9),
)
@settings(max_examples=50, deadline=None)
def test_a_mark_says_what_waits_or_that_it_was_not_taken_in(start: int, steps: set[int], more: int) -> None:
    """Never that something is done which waits; exactly what was meant, where it fits."""
    waiting = {start + step for step in steps}
    meant = Mark(max(waiting, default=start) + more, waiting)
    position = meant.position()
    found = read_mark(position)
    assert len(position.metadata) <= METADATA_MAX
    assert found.next <= meant.next
    assert set(found.waiting) == {offset for offset in waiting if offset < found.next}
    if len(waiting) <= 300:
        assert found.next == meant.next
