"""A real SMTP server on 127.0.0.1, with STARTTLS and a login, that may be told to refuse."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from engine.dev.process import free_port

USER, PASSWORD = "hooklog", "a mail password"


@dataclass(slots=True)
class Received:
    """aiosmtpd's handler: keeps mails, or answers what it is told to."""

    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    were_encrypted: list[bool] = field(default_factory=list)
    refuse_recipient: dict[str, str] = field(default_factory=dict)
    """Address -> what is answered to it."""
    refuse_data: str = ""

    async def handle_RCPT(  # noqa: N802  aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient or not."""
        if address in self.refuse_recipient:
            return self.refuse_recipient[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail or not."""
        if self.refuse_data:
            return self.refuse_data
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients.append(list(envelope.rcpt_tos))
        self.were_encrypted.append(session.ssl is not None)
        return "250 taken"


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where it is, what it got, and whom to trust."""

    port: int
    received: Received
    ca_file: Path

    def settings(self, **more: object) -> dict[str, object]:
        """Settings of whoever sends to it."""
        return {
            "mail_host": "localhost",
            "mail_port": self.port,
            "mail_user": USER,
            "mail_password": PASSWORD,
            "mail_ca_file": self.ca_file,
            "mail_from": "hooklog@platform.example",
            "mail_to": "ops@platform.example",
            **more,
        }


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=known, handled=False)


@contextmanager
def mail_server(folder: Path, *, encrypts: bool = True, port: int = 0) -> Iterator[MailServer]:
    """Run one; without encryption it offers no STARTTLS and takes no login."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    received = Received()
    controller = Controller(
        received,
        hostname="127.0.0.1",
        port=port or free_port(),
        tls_context=context if encrypts else None,
        require_starttls=encrypts,
        auth_required=encrypts,
        authenticator=_login if encrypts else None,
    )
    controller.start()
    try:
        yield MailServer(controller.port, received, ca_file)
    finally:
        controller.stop()
