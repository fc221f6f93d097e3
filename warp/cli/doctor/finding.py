"""Findings: what a check has found out, how bad it is, and what to do about it.

`CHECKS` is the list of everything that `warp doctor` can say something about. Their ids are stable: scripts read them
from `--json`, and docs/doctor.md explains each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

Figure = float | str | Sequence[str] | None
"""One measured value, for scripts; its name ends with its unit."""


class Severity(StrEnum):
    """How bad a finding is. Only a problem makes the exit code 1."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, nothing to do."""
    WARNING = "warning"
    """Works, but slower or less safely than it could."""
    PROBLEM = "problem"
    """The agent can't start or clients can't use it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at: the heading it is shown under, and its name there."""

    group: str
    title: str


CHECKS: Final = {
    "clock.object-store": Check("Clock", "against the object store"),
    "clock.metadata": Check("Clock", "against the database"),
    "object-store.open": Check("Object store", "open"),
    "object-store.check": Check("Object store", "health check"),
    "object-store.abilities": Check("Object store", "abilities"),
    "object-store.put-small": Check("Object store", "PUT small"),
    "object-store.put-large": Check("Object store", "PUT 4 MiB"),
    "object-store.get-small": Check("Object store", "GET small"),
    "object-store.get-large": Check("Object store", "GET 4 MiB"),
    "object-store.produce": Check("Object store", "produce"),
    "object-store.file-system": Check("Object store", "file system"),
    "object-store.space": Check("Object store", "free space"),
    "metadata.directory": Check("Metadata", "directory"),
    "metadata.database": Check("Metadata", "database"),
    "metadata.fsync": Check("Metadata", "fsync 4 KiB"),
    "metadata.file-system": Check("Metadata", "file system"),
    "metadata.space": Check("Metadata", "free space"),
    "metadata.open": Check("Metadata", "PostgreSQL"),
    "metadata.durability": Check("Metadata", "durability"),
    "metadata.encryption": Check("Metadata", "encryption"),
    "metadata.connections": Check("Metadata", "connections"),
    "metadata.round-trip": Check("Metadata", "round trip"),
    "metadata.commit": Check("Metadata", "commit"),
    "metadata.notices": Check("Metadata", "notices"),
    "cluster.id": Check("Cluster", "id"),
    "cluster.object-store": Check("Cluster", "object store"),
    "cluster.name": Check("Cluster", "name"),
    "cluster.http": Check("Cluster", "HTTP"),
    "jobs.role": Check("Jobs", "role"),
    "jobs.backlog": Check("Jobs", "backlog"),
    "jobs.quarantine": Check("Jobs", "records"),
    "ports.listen": Check("Ports", "Kafka"),
    "ports.http": Check("Ports", "HTTP"),
    "clients.advertised": Check("Clients", "told"),
    "clients.reach": Check("Clients", "reach"),
    "clients.cluster": Check("Clients", "cluster"),
    "clients.brokers": Check("Clients", "brokers"),
    "clients.round-trip": Check("Clients", "round trip"),
    "security.listener": Check("Security", "listener"),
    "security.authorization": Check("Security", "authorization"),
    "security.super-users": Check("Security", "super users"),
    "security.http": Check("Security", "HTTP"),
    "security.certificate": Check("Security", "certificate"),
    "security.key-file": Check("Security", "key"),
    "security.certificate-name": Check("Security", "host"),
    "limits.open-files": Check("Limits", "open files"),
    "limits.memory": Check("Limits", "memory"),
    "limits.processors": Check("Limits", "processors"),
    "limits.swap": Check("Limits", "swap"),
    "limits.listen-queue": Check("Limits", "listen queue"),
    "limits.checksum": Check("Limits", "CRC-32C"),
    "limits.software": Check("Limits", "software"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found, in one line.

    `check` is a key of CHECKS. `subject` tells findings of the same check apart, such as the address of a listener.
    `remedy` is there for warnings and problems, and for them alone.
    """

    check: str
    severity: Severity
    text: str
    remedy: str = ""
    subject: str = ""
    measured: Mapping[str, Figure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.check in CHECKS, self.check
        is_bad = self.severity in (Severity.WARNING, Severity.PROBLEM)
        assert is_bad == bool(self.remedy), f"{self.check}: a remedy for what is wrong, and only for that"

    @property
    def group(self) -> str:
        return CHECKS[self.check].group

    @property
    def title(self) -> str:
        """What people read before the text."""
        return f"{CHECKS[self.check].title} {self.subject}".rstrip()


def ok(check: str, text: str, *, subject: str = "", measured: Mapping[str, Figure] | None = None) -> Finding:
    """Nothing to do."""
    return Finding(check, Severity.OK, text, subject=subject, measured=measured or {})


def note(
    check: str, text: str, *, subject: str = "", measured: Mapping[str, Figure] | None = None
) -> Finding:
    """Nothing to do, but worth knowing."""
    return Finding(check, Severity.NOTE, text, subject=subject, measured=measured or {})


def warning(
    check: str, text: str, remedy: str, *, subject: str = "", measured: Mapping[str, Figure] | None = None
) -> Finding:
    """It works, but not as well as it could."""
    return Finding(check, Severity.WARNING, text, remedy, subject, measured or {})


def problem(
    check: str, text: str, remedy: str, *, subject: str = "", measured: Mapping[str, Figure] | None = None
) -> Finding:
    """It does not work."""
    return Finding(check, Severity.PROBLEM, text, remedy, subject, measured or {})


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """How many findings are as bad as that."""
    return sum(finding.severity is severity for finding in findings)
