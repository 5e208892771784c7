"""Mailing on a log in memory, a mail server that says what a test wants, and notices to be told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from prometheus_client import REGISTRY

from engine.core.endpoint import Endpoint
from engine.core.notice import Notice, NoticeKind, notice_id
from engine.runtime.health.mailing import Mailing
from engine.runtime.mail import Mail, MailError
from engine.runtime.memory import MemoryConsumer
from tests.pipeline.health_scene import Scene
from tests.pipeline.world import TENANT

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
        self.endpoints: dict[str, Endpoint] = {}
        self.mailing = Mailing(self.scene.context(), self.server, Inline(), self.endpoints)

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
        self.mailing = Mailing(self.scene.context(), self.server, Inline(), self.endpoints)


def counted(name: str, **labels: str) -> float:
    """A metric."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
