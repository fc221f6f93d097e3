"""Who gets in, by the settings: listeners, authorization, HTTP, and the certificate that all of it may rest on."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from warp.cli.doctor.facts import CertificateFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.config import AgentConfig
from warp.config_values import Address, ListenAddress

DAY_S: Final = 86_400
SOON_DAYS: Final = 30
"""Certificates are renewed by people, or by programs that should have done it by then."""
SEE: Final = "docs/security.md"


def judge_security(
    config: AgentConfig, certificate: CertificateFacts | None, told: Sequence[Address], now_s: float
) -> Iterator[Finding]:
    """`told` are the addresses that clients of each listener are told; `certificate` is None where none is set."""
    for listener in config.listen:
        yield _judge_listener(listener, config)
    yield from _judge_authorization(config)
    if config.http is not None:
        yield _judge_http(config, config.http)
    if certificate is None:
        return
    yield _judge_certificate(certificate, now_s)
    if certificate.refusal:
        return
    yield _judge_key_file(certificate)
    hosts = [address.host for listener, address in zip(config.listen, told, strict=True) if listener.has_tls]
    for host in dict.fromkeys(hosts):
        yield _judge_name(certificate, host)


def _judge_listener(listener: ListenAddress, config: AgentConfig) -> Finding:
    check, subject = "security.listener", str(listener)
    name = listener.protocol
    if listener.is_loopback:
        return ok(check, f"{name}, reached from this machine alone", subject=subject)
    if name == "PLAINTEXT":
        text = "PLAINTEXT: everybody who reaches it is taken in without a name, and all travels in the clear"
        remedy = f"listen on SASL_SSL://{listener} ({SEE}), or keep it inside a network that you trust"
        return warning(check, text, remedy, subject=subject)
    if name == "SSL" and config.tls_client_auth != "required":
        text = "SSL: encrypted, but clients need no certificate, and who shows none has no name"
        remedy = "add --tls-client-auth required, or listen on SASL_SSL"
        return warning(check, text, remedy, subject=subject)
    if name == "SASL_PLAINTEXT" and "PLAIN" in config.sasl_mechanisms:
        text = "SASL_PLAINTEXT with PLAIN: passwords travel in the clear, and everything else"
        remedy = f"listen on SASL_SSL://{listener}, or take PLAIN out of --sasl-mechanisms"
        return warning(check, text, remedy, subject=subject)
    if name == "SASL_PLAINTEXT":
        text = "SASL_PLAINTEXT: clients authenticate, but records travel in the clear"
        return warning(check, text, f"listen on SASL_SSL://{listener}", subject=subject)
    how = "by certificate" if name == "SSL" else f"by {', '.join(config.sasl_mechanisms)}"
    return ok(check, f"{name}: encrypted, clients authenticate {how}", subject=subject)


def _authenticates(config: AgentConfig) -> bool:
    """Has any client of Kafka a name?"""
    by_certificate = config.tls_client_auth != "none"
    return any(listener.has_sasl or (listener.has_tls and by_certificate) for listener in config.listen)


def _judge_authorization(config: AgentConfig) -> Iterator[Finding]:
    check, authenticates = "security.authorization", _authenticates(config)
    if config.authorization == "off":
        if authenticates:
            text = "off: whoever authenticates may do everything"
            yield warning(check, text, f"add --authorization log, then enforce ({SEE})")
        else:
            yield ok(check, "off")
        return
    if not authenticates:
        text = f"{config.authorization}, but no listener authenticates: everybody is User:ANONYMOUS"
        yield warning(check, text, "listen on SASL_SSL, or on SSL with --tls-client-auth required")
    elif config.authorization == "log":
        yield note(check, "log: nothing is refused; the log says what would be")
    else:
        yield ok(check, "enforce")
    if config.super_users:
        yield ok("security.super-users", "; ".join(config.super_users))
    elif config.authorization == "enforce":
        text = "none: where no ACL allows it yet, nobody may make the first one"
        yield warning("security.super-users", text, "name one with --super-users User:NAME")


def _judge_http(config: AgentConfig, http: Address) -> Finding:
    check, subject = "security.http", str(http)
    if http.is_loopback:
        return ok(check, "reached from this machine alone", subject=subject)
    if config.http_authentication == "required" and not config.http_tls:
        text = "names and passwords travel in the clear"
        return warning(check, text, "add --http-tls true", subject=subject)
    if config.http_authentication == "required":
        return ok(check, "encrypted, and who asks has to authenticate", subject=subject)
    text = "shows facts about the cluster to everybody who reaches it"
    if config.authorization == "enforce":
        return ok(check, "ACLs decide what those see who have no name", subject=subject)
    if _authenticates(config):
        remedy = "add --http-authentication required, and --http-tls true"
        return warning(check, f"{text}, while Kafka's clients have to authenticate", remedy, subject=subject)
    return note(check, text, subject=subject)


def _judge_certificate(facts: CertificateFacts, now_s: float) -> Finding:
    check, subject = "security.certificate", facts.path
    if facts.refusal:
        return problem(check, facts.refusal, "mend the files, or name others", subject=subject)
    days = int((facts.ends_s - now_s) // DAY_S)
    measured = {"days_left": days}
    if now_s < facts.begins_s:
        text = f"not valid before {_day(facts.begins_s)}"
        return problem(check, text, "set the clock, or make another one", subject=subject, measured=measured)
    if now_s >= facts.ends_s:
        text = f"expired on {_day(facts.ends_s)}: clients refuse it"
        remedy = "put a new one in its place; the agent reads it within seconds"
        return problem(check, text, remedy, subject=subject, measured=measured)
    text = f"valid until {_day(facts.ends_s)}, {days} days more"
    if days < SOON_DAYS:
        remedy = "put a new one in its place; the agent reads it within seconds"
        return warning(check, text, remedy, subject=subject, measured=measured)
    return ok(check, text, subject=subject, measured=measured)


def _judge_key_file(facts: CertificateFacts) -> Finding:
    check, subject = "security.key-file", facts.key_path
    mode = f"{facts.key_mode:03o}"
    if facts.key_mode & (stat.S_IROTH | stat.S_IWOTH):
        text = f"everybody on this machine may read or change it (mode {mode})"
        return warning(check, text, f"chmod 600 {subject}", subject=subject, measured={"mode": mode})
    return ok(check, f"mode {mode}", subject=subject, measured={"mode": mode})


def _judge_name(facts: CertificateFacts, host: str) -> Finding:
    check = "security.certificate-name"
    if is_for(facts, host):
        return ok(check, "the certificate is for it", subject=host)
    names = ", ".join((*facts.names, *facts.addresses)) or "no name at all"
    text = f"clients are told this host, but the certificate is for {names}: they refuse it"
    remedy = f"make one whose subjectAltName holds {host}, or advertise a name that it holds"
    return problem(check, text, remedy, subject=host)


def is_for(facts: CertificateFacts, host: str) -> bool:
    """Would a client that connects to a host take the certificate, as far as names go (RFC 6125)?"""
    try:
        return str(ipaddress.ip_address(host)) in facts.addresses
    except ValueError:
        wanted = host.lower().rstrip(".")
        return any(_fits(name.lower().rstrip("."), wanted) for name in facts.names)


def _fits(name: str, host: str) -> bool:
    """A star stands for the whole first label."""
    if not name.startswith("*."):
        return name == host
    first, _, rest = host.partition(".")
    return bool(first) and rest == name[2:]


def _day(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
