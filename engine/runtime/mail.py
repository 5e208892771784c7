"""Mail: plain text over SMTP with STARTTLS."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from threading import Timer

from engine.runtime import telemetry
from engine.runtime.settings import Settings

PATIENCE_S = 10.0
"""How long each step of a conversation with the mail server may take."""
WHOLE_S = 60.0
"""And how long all of it: a server may say a byte a step."""
_CLOSES = 421
_LOG = telemetry.logger("mail")


class MailError(Exception):
    """The mail server is away, or did not take a mail; the same may succeed later."""


class PutOffMailError(MailError):
    """The mail server puts this one mail off (4xx): a full mailbox, a greylist. Others it may take."""


class RefusedMailError(MailError):
    """The mail server refused this one mail and says that it always will (5xx)."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in plain text; `id` becomes its Message-ID, `at` (microseconds) its date."""

    id: str
    at: int
    to: tuple[str, ...]
    subject: str
    text: str


Send = Callable[[Mail], None]
"""Hands a mail to the server; MailError, of which two kinds are about this mail alone."""


def server_of(settings: Settings) -> Send | None:
    """How mail is sent; None if there is no mail server."""
    if not settings.mail_host:
        return None
    return lambda mail: send(settings, mail)


class _Conversation(smtplib.SMTP):
    """Ended by force after so long: a timeout of the socket is one of each byte."""

    def __init__(self, settings: Settings, patience_s: float, whole_s: float) -> None:
        self._end = Timer(whole_s, self._hang_up)
        self._end.daemon = True
        self._end.start()
        try:
            super().__init__(settings.mail_host, settings.mail_port, timeout=patience_s)
        except (OSError, smtplib.SMTPException, UnicodeError):
            self.close()
            raise

    def _hang_up(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._end.cancel()
        super().close()


def send(settings: Settings, mail: Mail, *, patience_s: float = PATIENCE_S, whole_s: float = WHOLE_S) -> None:
    """Send a mail in a conversation of its own; MailError, PutOffMailError, RefusedMailError."""
    with _errors():
        server = _Conversation(settings, patience_s, whole_s)
        try:
            _prepare(server, settings)
            refused = server.send_message(message_of(mail, settings), settings.mail_from, mail.to)
            with suppress(smtplib.SMTPException, OSError):
                server.quit()  # the server has the mail, whatever becomes of the conversation
        finally:
            server.close()
    if refused:
        _LOG.warning("mail.recipients_refused", notice=mail.id, count=len(refused))


@contextmanager
def _errors() -> Iterator[None]:
    """What goes wrong with a mail server, as one of the three errors."""
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted(code for code, _ in error.recipients.values())
        raise _refusal(codes[0], f"no recipient was accepted ({', '.join(map(str, codes))})") from None
    except smtplib.SMTPDataError as error:
        raise _refusal(error.smtp_code, f"{error.smtp_code} {_words(error.smtp_error)}") from None
    except smtplib.SMTPResponseException as error:
        raise MailError(f"{type(error).__name__}: {error.smtp_code} {_words(error.smtp_error)}") from None
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(f"{type(error).__name__}: {error}") from None
    except UnicodeError:  # its text shows what it is about: perhaps the password
        raise MailError("the server's name, user and password must be such as SMTP can carry") from None


def _prepare(server: smtplib.SMTP, settings: Settings) -> None:
    if settings.mail_starttls:
        trusted = None if settings.mail_ca_file is None else str(settings.mail_ca_file)
        server.starttls(context=ssl.create_default_context(cafile=trusted))
    if settings.mail_user:
        server.login(settings.mail_user, settings.mail_password.get_secret_value())


def _refusal(code: int, words: str) -> MailError:
    """421 is no answer to this mail: the server closes."""
    if code >= 500:
        return RefusedMailError(words)
    return MailError(words) if code == _CLOSES else PutOffMailError(words)


def _words(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def message_of(mail: Mail, settings: Settings) -> EmailMessage:
    """The mail with its headers. A mail that is sent again has the same Message-ID."""
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = ", ".join(mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(mail.at // 1_000_000, UTC))
    message["Message-ID"] = f"<{mail.id}@{settings.mail_from.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message
