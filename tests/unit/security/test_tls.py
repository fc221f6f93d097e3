"""Certificates out of files: what can't be used is named, and what changes comes into force."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import Authority, Issued
from warp.errors import StartError, UsageError
from warp.security.tls import Tls, TlsSettings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Issued:
    return authority.issue("server")


def is_trusted(tls: Tls, authority: Authority) -> bool:
    """Whether a client of that authority accepts what is in force."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client_context().wrap_bio(to_client, to_server, server_hostname="localhost")
    server = tls.context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_a_certificate_and_its_key_may_be_in_one_file(
    tmp_path: Path, authority: Authority, server: Issued
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
    assert is_trusted(Tls(TlsSettings(both)), authority)


def test_an_encrypted_key_needs_the_file_with_its_password(tmp_path: Path, authority: Authority) -> None:
    server = authority.issue("locked", password=b"open sesame")
    password = tmp_path / "password"
    password.write_bytes(b"open sesame\n")
    assert is_trusted(Tls(TlsSettings(server.certificate, server.key, password)), authority)
    with pytest.raises(StartError, match="is encrypted; name the file with its password"):
        Tls(TlsSettings(server.certificate, server.key))
    password.write_bytes(b"open barley\n")
    with pytest.raises(StartError, match="password in --tls-key-password-file does not open") as caught:
        Tls(TlsSettings(server.certificate, server.key, password))
    assert "barley" not in str(caught.value)
    password.write_bytes(bytes(2_000))
    with pytest.raises(StartError, match="larger than 1024 bytes"):
        Tls(TlsSettings(server.certificate, server.key, password))


def test_what_can_not_be_used_is_named(tmp_path: Path, authority: Authority, server: Issued) -> None:
    other = authority.issue("other")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    missing = tmp_path / "missing"
    for settings, problem in (
        (TlsSettings(missing), f"can't read {missing}: No such file"),
        (TlsSettings(server.certificate, missing), f"can't read {missing}: No such file"),
        (TlsSettings(tmp_path), "can't read .*: Is a directory"),
        (TlsSettings(empty, server.key), "can't be used as certificate and private key in PEM"),
        (TlsSettings(server.certificate, empty), "can't be used as certificate and private key in PEM"),
        (TlsSettings(server.certificate), "can't be used as certificate and private key in PEM"),
        (TlsSettings(server.certificate, other.key), "is not that of the certificate"),
        (TlsSettings(server.certificate, server.key, None, empty, "required"), "holds no certificates"),
    ):
        with pytest.raises(StartError, match=problem):
            Tls(settings)


def test_settings_that_can_not_be_are_the_users_mistake(server: Issued) -> None:
    with pytest.raises(UsageError, match=r"--tls-principal-rules: .*neither DEFAULT"):
        Tls(TlsSettings(server.certificate, server.key, principal_rules="nonsense"))
    with pytest.raises(UsageError, match="--tls-client-auth required needs --tls-client-ca"):
        Tls(TlsSettings(server.certificate, server.key, client_auth="required"))


def test_old_versions_of_tls_are_not_spoken(server: Issued) -> None:
    assert (
        Tls(TlsSettings(server.certificate, server.key)).context().minimum_version is ssl.TLSVersion.TLSv1_2
    )
    newer = Tls(TlsSettings(server.certificate, server.key, version_min="1.3"))
    assert newer.context().minimum_version is ssl.TLSVersion.TLSv1_3
    assert newer.context().options & ssl.OP_NO_RENEGOTIATION


def test_changed_files_come_into_force_together_and_not_before(
    tmp_path: Path, authority: Authority, server: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    tls = Tls(TlsSettings(server.certificate, server.key))
    assert not tls.look()
    before = tls.context()
    renewed = Authority(tmp_path, "renewed").issue("renewed-server")
    with caplog.at_level(logging.INFO, "warp.security"):
        renewed.certificate.replace(server.certificate)
        assert not tls.look()
        assert (tls.loads, tls.failures) == (1, 1)
        assert "the certificates in force stay: the private key" in caplog.text
        assert tls.context() is before
        caplog.clear()
        # Looked at again and again, it is told once.
        assert not tls.look()
        assert not caplog.messages
        renewed.key.replace(server.key)
        assert tls.look()
        assert "new certificates are in force" in caplog.text
    assert (tls.loads, tls.failures) == (2, 1)
    assert not is_trusted(tls, authority)


def test_links_that_lead_elsewhere_count_as_changed(tmp_path: Path, server: Issued) -> None:
    other = Authority(tmp_path, "second").issue("second-server")
    link, key = tmp_path / "link.pem", tmp_path / "link.key"
    link.symlink_to(server.certificate)
    key.symlink_to(server.key)
    tls = Tls(TlsSettings(link, key))
    for path, target in ((link, other.certificate), (key, other.key)):
        path.unlink()
        path.symlink_to(target)
    assert tls.look()


def test_the_authority_of_clients_may_be_replaced_and_missing_files_change_nothing(
    tmp_path: Path, authority: Authority, server: Issued
) -> None:
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.ca.read_bytes())
    tls = Tls(TlsSettings(server.certificate, server.key, None, trusted, "required"))
    before = tls.context()
    trusted.unlink()
    assert not tls.look()
    assert tls.context() is before
    trusted.write_bytes(Authority(tmp_path, "third").ca.read_bytes())
    assert tls.look()
    assert tls.context() is not before
    assert tls.context().verify_mode is ssl.CERT_REQUIRED
    assert tls.http_context().verify_mode is ssl.CERT_OPTIONAL


def test_an_expired_certificate_is_not_trusted_by_clients(authority: Authority) -> None:
    expired = authority.issue("expired", age=dt.timedelta(days=3))
    assert not is_trusted(Tls(TlsSettings(expired.certificate, expired.key)), authority)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_shows_its_certificate_every_time(
    authority: Authority, server: Issued, version: ssl.TLSVersion
) -> None:
    """A session that is resumed would carry on a certificate that has expired meanwhile."""
    settings = TlsSettings(server.certificate, server.key, client_ca=authority.ca, client_auth="required")
    tls = Tls(settings)
    client_context = authority.client_context(authority.issue("alice"))
    client_context.maximum_version = version

    def connect(context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
        accepted = context.wrap_bio(to_server, to_client, server_side=True)
        for end in (client, accepted) * 3:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
        accepted.write(b"x")
        assert client.read(1) == b"x"  # and with it what was sent to resume by
        return client

    for context in (tls.context(), tls.http_context()):
        first = connect(context, None)
        assert first.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        assert not connect(context, first.session).session_reused
    # Where nobody is asked for a certificate, it saves work.
    context = Tls(TlsSettings(server.certificate, server.key)).context()
    assert connect(context, connect(context, None).session).session_reused
