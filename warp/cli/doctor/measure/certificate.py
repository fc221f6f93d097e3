"""What the files of --tls-certificate and --tls-key hold, as the agent would use them."""

from __future__ import annotations

import stat
from pathlib import Path

from warp.cli.doctor.facts import CertificateFacts
from warp.errors import WarpError
from warp.security.tls import Tls, TlsSettings

CERTIFICATE_BYTES_MAX = 1024 * 1024


def look_at_certificate(settings: TlsSettings) -> CertificateFacts:
    """Never raises for what the files are; waits for the disk."""
    path, key = settings.certificate, settings.key or settings.certificate
    try:
        Tls(settings)
    except WarpError as error:
        return CertificateFacts(str(path), str(key), refusal=str(error))
    # Loaded only here: an agent that doesn't need it does without.
    from cryptography import x509  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            certificate = x509.load_pem_x509_certificates(file.read(CERTIFICATE_BYTES_MAX))[0]
        names, addresses = _names(certificate)
        return CertificateFacts(
            str(path),
            str(key),
            key_mode=_mode(key),
            begins_s=certificate.not_valid_before_utc.timestamp(),
            ends_s=certificate.not_valid_after_utc.timestamp(),
            names=names,
            addresses=addresses,
        )
    except (OSError, ValueError) as error:
        return CertificateFacts(str(path), str(key), refusal=f"{path} can't be read: {error}")


def _mode(key: Path) -> int:
    return stat.S_IMODE(key.stat().st_mode)


def _names(certificate: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The host names and the addresses that it is for. Clients look at no other fields."""
    from cryptography import x509  # noqa: PLC0415

    assert isinstance(certificate, x509.Certificate)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), ()
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return tuple(names), tuple(map(str, addresses))
