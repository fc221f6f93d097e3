"""An authority and the certificates that it signs, made anew for each test: valid, expired, with any subject."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)
LOCAL: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
)


def common_name(text: str) -> x509.Name:
    """A subject of nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, each in a file of its own."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `ca` is the file that those who trust it need."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = directory / f"{name}.pem"
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), dt.timedelta())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        file_name: str,
        subject: x509.Name | None = None,
        *,
        age: dt.timedelta = dt.timedelta(),
        password: bytes | None = None,
    ) -> Issued:
        """A certificate for localhost, valid for a day on either side of now, or of `age` before now."""
        issued = Issued(self._directory / f"{file_name}.pem", self._directory / f"{file_name}.key")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(subject or common_name(file_name), self._name, key.public_key(), age)
            .add_extension(x509.SubjectAlternativeName(LOCAL), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encryption = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password)
        )
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        issued.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return issued

    def client_context(self, shown: Issued | None = None) -> ssl.SSLContext:
        """What a client needs that trusts this authority, and shows a certificate or none."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, age: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC) - age
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
