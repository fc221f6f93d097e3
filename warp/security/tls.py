"""The certificates of an agent: read from their files, and again whenever those change.

A connection takes the context that is in force when it comes; those that are open keep theirs. Files that can't be used
are logged, and what was in force stays: a certificate and its key are two files, and may be seen between the two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warp.errors import StartError, UsageError
from warp.security.principal import ANONYMOUS, NAME_CHARACTERS_MAX, USER, Principal
from warp.security.tls_names import subject_text
from warp.security.tls_rules import PrincipalRules

log = logging.getLogger("warp.security")

LOOK_INTERVAL_S = 3.0
"""How often the files are looked at."""

PASSWORD_BYTES_MAX = 1_024

_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "requested": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files and rules, as the options --tls-… name them."""

    certificate: Path
    key: Path | None = None
    key_password_file: Path | None = None
    client_ca: Path | None = None
    client_auth: str = "none"
    principal_rules: str = "DEFAULT"
    version_min: str = "1.2"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that are read."""
        found = (self.certificate, self.key, self.key_password_file, self.client_ca)
        return tuple(file for file in found if file is not None)


@dataclass(frozen=True, slots=True)
class _Contexts:
    kafka: ssl.SSLContext
    http: ssl.SSLContext


class Tls:
    """The contexts of one agent.

    Raises UsageError for settings that can't be, StartError for files that can't be used.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        try:
            self._rules = PrincipalRules(settings.principal_rules)
        except ValueError as error:
            raise UsageError(f"--tls-principal-rules: {error}") from None
        if settings.client_auth != "none" and settings.client_ca is None:
            raise UsageError(
                f"--tls-client-auth {settings.client_auth} needs --tls-client-ca: the authorities whose certificates "
                "are accepted"
            )
        self._seen = _signature(settings)
        self._contexts = _load(settings)
        self.loads = 1
        """How often certificates were taken into force."""
        self.failures = 0
        """How often files were seen that could not be used."""

    def context(self) -> ssl.SSLContext:
        """For the next connection of a Kafka listener."""
        return self._contexts.kafka

    def http_context(self) -> ssl.SSLContext:
        """For the next connection of HTTP, whose clients may show a certificate where there is an authority for it."""
        return self._contexts.http

    def principal(self, shown: ssl.SSLObject) -> Principal:
        """Who the client is by its certificate; ANONYMOUS without one.

        Raises ValueError for a certificate that no rule makes a name of, or that can't be read.
        """
        found = self.certified(shown)
        return ANONYMOUS if found is None else found

    def certified(self, shown: ssl.SSLObject) -> Principal | None:
        """The same; None without a certificate."""
        certificate = shown.getpeercert(binary_form=True)
        if certificate is None:
            return None
        name = self._rules.name(subject_text(certificate))
        if len(name) > NAME_CHARACTERS_MAX:
            raise ValueError(f"the name in its certificate is longer than {NAME_CHARACTERS_MAX} characters")
        return Principal(USER, name)

    async def watch(self, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Take changed files into force, for ever. They may be on a network: a thread reads them."""
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """Whether files have changed and their certificates are now in force. Never raises."""
        seen = _signature(self._settings)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._contexts = _load(self._settings)
        except StartError as error:
            self.failures += 1
            log.error("the certificates in force stay: %s", error)
            return False
        self.loads += 1
        log.info("new certificates are in force for new connections: %s", self._settings.certificate)
        return True


def _signature(settings: TlsSettings) -> tuple[tuple[int, ...], ...]:
    """What changes when a file does, also where it is a link that now leads elsewhere."""
    found: list[tuple[int, ...]] = []
    for file in settings.files:
        try:
            status = os.stat(file)  # noqa: PTH116  a link is followed either way
        except OSError as error:
            found.append((error.errno or 0,))
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _load(settings: TlsSettings) -> _Contexts:
    http_auth = "none" if settings.client_ca is None else "requested"
    return _Contexts(_context(settings, settings.client_auth), _context(settings, http_auth))


def _context(settings: TlsSettings, client_auth: str) -> ssl.SSLContext:
    """Raises StartError that names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.version_min]
    # A client that renegotiates makes the server work, and Kafka's never do.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    for file in settings.files:
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            raise StartError(f"can't read {file}: {error.strerror}") from None
    key = settings.key or settings.certificate
    password = _Password(settings)
    try:
        context.load_cert_chain(settings.certificate, settings.key, password)
    except ssl.SSLError as error:
        raise StartError(_load_problem(error, settings.certificate, key, password)) from None
    except OSError as error:
        raise StartError(f"can't read {settings.certificate} or {key}: {error.strerror}") from None
    if client_auth != "none" and settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise StartError(f"--tls-client-ca {settings.client_ca} holds no certificates: {error}") from None
        # A session that is resumed shows no certificate, and could be again and again after that has expired.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    context.verify_mode = _VERIFY[client_auth]
    return context


class _Password:
    """The password of the key, which OpenSSL asks for when that is encrypted. Raises StartError."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self.was_asked = False

    def __call__(self) -> bytes:
        self.was_asked = True
        file = self._settings.key_password_file
        if file is None:
            key = self._settings.key or self._settings.certificate
            raise StartError(
                f"{key} is encrypted; name the file with its password by --tls-key-password-file"
            )
        try:
            with file.open("rb") as opened:
                text = opened.read(PASSWORD_BYTES_MAX + 1)
        except OSError as error:
            raise StartError(f"can't read {file}: {error.strerror}") from None
        if len(text) > PASSWORD_BYTES_MAX:
            raise StartError(
                f"{file} is larger than {PASSWORD_BYTES_MAX} bytes; it should hold a password alone"
            )
        return text.rstrip(b"\r\n")


def _load_problem(error: ssl.SSLError, certificate: Path, key: Path, password: _Password) -> str:
    reason = (error.reason or "").upper()
    if "KEY_VALUES_MISMATCH" in reason:
        return f"the private key in {key} is not that of the certificate in {certificate}"
    if password.was_asked:
        return f"the password in --tls-key-password-file does not open {key}"
    why = reason.replace("_", " ").lower() or "no PEM"
    return f"{certificate} and {key} can't be used as certificate and private key in PEM: {why}"
