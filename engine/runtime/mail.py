"""Mail: plain text over SMTP with STARTTLS."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from engine.runtime import telemetry
from engine.runtime.settings import Settings

PATIENCE_S = 10.0
"""How long each step of a conversation with the mail server may take."""
_LOG = telemetry.logger("mail")


class MailError(Exception):
    """The mail server is away, or did not take a mail; the same may succeed later."""


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
"""Hands a mail to the server; MailError, RefusedMailError."""


def server_of(settings: Settings) -> Send | None:
    """How mail is sent; None if there is no mail server."""
    if not settings.mail_host:
        return None
    return lambda mail: send(settings, mail)


def send(settings: Settings, mail: Mail, *, patience_s: float = PATIENCE_S) -> None:
    """Send a mail in a conversation of its own; MailError, RefusedMailError."""
    with _errors():
        server = smtplib.SMTP(settings.mail_host, settings.mail_port, timeout=patience_s)
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
    """What goes wrong with a mail server, as one of the two errors."""
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


def _prepare(server: smtplib.SMTP, settings: Settings) -> None:
    if settings.mail_starttls:
        trusted = None if settings.mail_ca_file is None else str(settings.mail_ca_file)
        server.starttls(context=ssl.create_default_context(cafile=trusted))
    if settings.mail_user:
        server.login(settings.mail_user, settings.mail_password.get_secret_value())


def _refusal(code: int, words: str) -> MailError:
    return RefusedMailError(words) if code >= 500 else MailError(words)


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
