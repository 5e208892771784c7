"""Mail to a real SMTP server: encrypted, with a login, and what is said when it refuses or is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from engine.dev.process import free_port
from engine.runtime.mail import Mail, MailError, PutOffMailError, RefusedMailError, send, server_of
from engine.runtime.settings import Settings, load_settings
from tests.runtime.mail_server import PASSWORD, MailServer, mail_server

MAIL = Mail("ntc_1", 1_760_000_000_000_000, ("ops@platform.example",), "Zoë: it fails", "Über\n.\nend\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """One server for all tests here."""
    with mail_server(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def settings(server: MailServer) -> Settings:
    """Of whoever sends to it."""
    server.received.refuse_data = ""
    server.received.refuse_recipient.clear()
    return load_settings(**server.settings())


def test_a_mail_arrives_as_it_was_written(server: MailServer, settings: Settings) -> None:
    """Encrypted, in UTF-8, a lone dot included, with an id that a repeat has too."""
    send(settings, MAIL)
    message = server.received.mails[-1]
    assert server.received.were_encrypted[-1]
    assert server.received.recipients[-1] == ["ops@platform.example"]
    assert (message["From"], message["To"]) == ("hooklog@platform.example", "ops@platform.example")
    assert (message["Subject"], message["Message-ID"]) == ("Zoë: it fails", "<ntc_1@platform.example>")
    assert message["Date"] == "Thu, 09 Oct 2025 08:53:20 +0000"
    assert message.get_content().splitlines() == ["Über", ".", "end"]


def test_without_a_server_there_is_no_mail() -> None:
    """No default sends anything anywhere."""
    assert server_of(load_settings()) is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [("550 no such mailbox", RefusedMailError), ("450 try later", PutOffMailError), ("421 bye", MailError)],
)
def test_a_recipient_that_is_refused(
    server: MailServer, settings: Settings, answer: str, error: type[MailError]
) -> None:
    """For good or for now, as the server says."""
    server.received.refuse_recipient["ops@platform.example"] = answer
    with pytest.raises(MailError, match=answer[:3]) as raised:
        send(settings, MAIL)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("answer", "error"),
    [("554 no", RefusedMailError), ("451 busy", PutOffMailError), ("421 closing", MailError)],
)
def test_a_mail_that_is_refused(
    server: MailServer, settings: Settings, answer: str, error: type[MailError]
) -> None:
    """Its words are in the error."""
    server.received.refuse_data = answer
    with pytest.raises(MailError, match=answer) as raised:
        send(settings, MAIL)
    assert type(raised.value) is error


def test_a_wrong_password_may_be_put_right(server: MailServer) -> None:
    """So it's no reason to give a mail up; the password is in no error."""
    wrong = load_settings(**server.settings(mail_password=PASSWORD + "!"))
    with pytest.raises(MailError, match="535") as raised:
        send(wrong, MAIL)
    assert type(raised.value) is MailError
    assert PASSWORD not in str(raised.value)


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(server: MailServer) -> None:
    """Nothing is sent, the password least of all."""
    before = len(server.received.mails)
    with pytest.raises(MailError, match="certificate verify failed"):
        send(load_settings(**server.settings(mail_ca_file=None)), MAIL)
    assert len(server.received.mails) == before


def test_a_server_without_starttls_gets_nothing_unless_told_so(tmp_path: Path) -> None:
    """A mail in the clear is a choice."""
    with mail_server(tmp_path, encrypts=False) as server:
        with pytest.raises(MailError, match="STARTTLS"):
            send(load_settings(**server.settings(mail_user="")), MAIL)
        assert server.received.mails == []
        send(load_settings(**server.settings(mail_user="", mail_starttls=False)), MAIL)
        assert server.received.were_encrypted == [False]


def test_a_server_that_is_away() -> None:
    """The same later may succeed."""
    with pytest.raises(MailError, match="refused"):
        send(load_settings(mail_host="127.0.0.1", mail_port=free_port()), MAIL)


def test_a_server_that_says_nothing() -> None:
    """Is waited for only so long."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        settings = load_settings(mail_host="127.0.0.1", mail_port=silent.getsockname()[1])
        with pytest.raises(MailError, match="timed out"):
            send(settings, MAIL, patience_s=0.2)


def test_a_server_that_says_a_byte_at_a_time_is_hung_up_on() -> None:
    """Each byte is within the patience of a step; the whole conversation has an end of its own."""
    is_over = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        talking = threading.Thread(target=_drawl, args=(listening, is_over))
        talking.start()
        settings = load_settings(mail_host="127.0.0.1", mail_port=listening.getsockname()[1])
        with pytest.raises(MailError):
            send(settings, MAIL, patience_s=5, whole_s=0.3)
        assert not is_over.is_set()
        is_over.set()
        talking.join(60)


def _drawl(listening: socket.socket, is_over: threading.Event) -> None:
    """Greet without end, until the line is cut."""
    connection, _ = listening.accept()
    with connection, suppress(OSError):
        for _ in range(200):
            connection.sendall(b"2")
            if is_over.wait(0.05):
                return
    is_over.set()


@pytest.mark.parametrize("wrong", [{"mail_host": "m" * 70 + ".example"}, {"mail_password": "schlüssel"}])
def test_what_smtp_cannot_carry_is_an_error_that_shows_nothing(
    server: MailServer, wrong: dict[str, object]
) -> None:
    """The process goes on, and no log shows a part of the password."""
    with pytest.raises(MailError, match="must be such as SMTP can carry") as raised:
        send(load_settings(**server.settings(**wrong)), MAIL)
    assert "\\xfc" not in str(raised.value)


def test_a_server_that_takes_the_mail_and_hangs_up_has_it() -> None:
    """Whatever becomes of the good-bye: else the mail would come twice."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        talking = threading.Thread(target=_hang_up, args=(listening,))
        talking.start()
        settings = load_settings(
            mail_host="127.0.0.1", mail_port=listening.getsockname()[1], mail_starttls=False
        )
        send(settings, MAIL)
        talking.join(60)


def _hang_up(listening: socket.socket) -> None:
    """Say yes to everything, and close when the good-bye comes."""
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 here\r\n")
        is_text = False
        for line in lines:
            if line.upper().startswith(b"QUIT") and not is_text:
                return
            if is_text and line != b".\r\n":
                continue
            is_text = line.upper().startswith(b"DATA")
            connection.sendall(b"354 go on\r\n" if is_text else b"250 ok\r\n")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mail_from": "nobody"},
        {"mail_to": "a@b.example, x y@z"},
        {"mail_tenants": "acme:ops@acme.example"},
        {"mail_tenants": "acme=ops"},
        {"mail_to": "a@b\nBcc: c@d"},
        {"disable_after": "5 days"},
        {"disable_apart": "none"},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, object]) -> None:
    """Are refused at the start."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        load_settings(**wrong)


def test_settings_of_addresses() -> None:
    """Lists and pairs, as people write them."""
    settings = load_settings(mail_to="a@x.example, b@x.example", mail_tenants="acme=ops@acme.example")
    assert settings.mail_to == ("a@x.example", "b@x.example")
    assert settings.tenant_addresses == {"acme": "ops@acme.example"}
