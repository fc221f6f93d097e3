"""Subjects of certificates as Java writes them, and certificates that are none."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, strategies as st

from warp.security.tls_names import MalformedName, subject_text

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def certificate(subject: x509.Name) -> bytes:
    """A certificate of that subject, in DER."""
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer, not subject")]))
        .public_key(KEY.public_key())
        .serial_number(2**130 + 1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def name(*parts: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (name(), ""),
        (name((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "Example"), (NameOID.COMMON_NAME, "a")),
         "CN=a,O=Example,C=DE"),
        (name((NameOID.STATE_OR_PROVINCE_NAME, "BY"), (NameOID.LOCALITY_NAME, "M"),
              (NameOID.STREET_ADDRESS, "S 1"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "U"),
              (NameOID.USER_ID, "uid"), (NameOID.DOMAIN_COMPONENT, "dc")),
         "DC=dc,UID=uid,OU=U,STREET=S 1,L=M,ST=BY"),
        (name((NameOID.COMMON_NAME, 'a,b=c+d<e>f#g;h"i\\j')), 'CN=a\\,b\\=c\\+d\\<e\\>f\\#g\\;h\\"i\\\\j'),
        (name((NameOID.COMMON_NAME, "  two  each  ")), "CN=\\ \\ two  each\\ \\ "),
        (name((NameOID.COMMON_NAME, " ")), "CN=\\ "),
        (name((NameOID.COMMON_NAME, "Zoë 名")), "CN=Zoë 名"),
        (name((NameOID.COMMON_NAME, "a\0b")), "CN=a\\00b"),
        # By number and in hexadecimal: what RFC 2253 has no keyword for.
        (name((NameOID.EMAIL_ADDRESS, "a@b"), (NameOID.COMMON_NAME, "x")),
         "CN=x,1.2.840.113549.1.9.1=#1603614062"),
        (name((NameOID.SERIAL_NUMBER, "7")), "2.5.4.5=#130137"),
        (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wide", _ASN1Type.BMPString)]), "CN=wide"),
        (x509.Name([x509.RelativeDistinguishedName([
            x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")])]),
         "CN=a+UID=b"),
    ],
)  # fmt: skip
def test_a_subject_is_written_as_java_writes_it(subject: x509.Name, expected: str) -> None:
    assert subject_text(certificate(subject)) == expected


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(TEXTS)
def test_what_is_escaped_can_be_read_back(text: str) -> None:
    written = subject_text(certificate(name((NameOID.COMMON_NAME, text)))).removeprefix("CN=")
    read, at = "", 0
    while at < len(written):
        if written.startswith("\\00", at):
            read, at = read + "\0", at + 3
            continue
        at += written[at] == "\\"
        read, at = read + written[at], at + 1
    assert read == text


def test_every_truncation_and_every_changed_byte_is_a_name_or_a_refusal() -> None:
    whole = certificate(name((NameOID.COMMON_NAME, "a"), (NameOID.EMAIL_ADDRESS, "a@b")))
    for end in range(len(whole)):
        with pytest.raises(MalformedName):
            subject_text(whole[:end])
    for at in range(min(len(whole), 250)):
        for value in (0, 0x30, 0x80, 0x84, 0xFF):
            # Anything else than these two is a failure of the test.
            with contextlib.suppress(MalformedName):
                assert isinstance(subject_text(whole[:at] + bytes([value]) + whole[at + 1 :]), str)
