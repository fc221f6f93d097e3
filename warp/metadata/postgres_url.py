"""What a metadata URL of PostgreSQL says, checked before anybody connects.

`postgresql://USER:PASSWORD@HOST:PORT/DATABASE?…` as libpq takes it, and two parameters of this package's own:
`schema=NAME` (where the tables are; without it, where the role's search path leads) and `pooler=transaction` (a pooler
such as PgBouncer hands out another server connection with every transaction).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from warp.errors import UsageError

APPLICATION_NAME = "warp"
EXAMPLE = "postgresql://user@host:5432/database"

_PASSED_ON = (
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
)
_FILES = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_OWN = ("schema", "pooler", "application_name")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """Where the database is. `dsns` is what asyncpg takes, one for each host, and all that may hold a password."""

    dsns: tuple[str, ...]
    where: str
    """Host and database, for messages."""
    schema: str | None = None
    is_transaction_pooled: bool = False
    application_name: str = APPLICATION_NAME
    target: str | None = None
    """Which of several hosts will do, None for any."""
    files: tuple[tuple[str, str], ...] = ()
    """Parameters that name files, and their paths."""

    def __repr__(self) -> str:
        return f"PostgresUrl({self.where})"


def parse_postgres_url(url: str) -> PostgresUrl:
    """Raises UsageError, which shows no password."""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise UsageError(f"metadata: this is not a URL like {EXAMPLE}") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise UsageError("metadata: a parameter of the URL is there twice")
    if parts.fragment:
        raise UsageError("metadata: the URL has a '#' in it: write %23")
    for name in options:
        if name not in _PASSED_ON + _OWN:
            known = ", ".join(sorted(_PASSED_ON + _OWN))
            raise UsageError(f"metadata: unknown parameter {name!r} of a PostgreSQL URL; there are {known}")
    location = parts.netloc.rpartition("@")[2]
    if location.startswith(("/", "%2F", "%2f")):
        raise UsageError(
            "metadata: give the directory of a socket as host=: postgresql:///database?host=/dir"
        )
    schema = _schema(options.get("schema"))
    is_pooled = _is_pooled(options.get("pooler"))
    if schema is not None and is_pooled:
        raise UsageError(
            "metadata: schema= and pooler=transaction don't go together: "
            "set the role's schema by ALTER ROLE … SET search_path"
        )
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        raise UsageError(f"metadata: sslmode is one of {', '.join(_SSL_MODES)}")
    hosts = options.get("host") or location
    passed = {name: value for name, value in options.items() if name in _PASSED_ON}
    database = options.get("dbname") or parts.path.removeprefix("/")
    return PostgresUrl(
        dsns=_dsns(parts, hosts, passed),
        where=f"{hosts or 'the local server'}/{database}",
        schema=schema,
        is_transaction_pooled=is_pooled,
        application_name=options.get("application_name", APPLICATION_NAME),
        files=tuple((name, options[name]) for name in _FILES if name in options),
        target="read-write" if "," in hosts and "target_session_attrs" not in options else None,
    )


def _dsns(parts: SplitResult, hosts: str, passed: dict[str, str]) -> tuple[str, ...]:
    """A URL for each of the hosts, so that one that does not answer can't use up the time of the others."""
    parts = parts._replace(scheme="postgresql")
    if "," not in hosts:
        return (parts._replace(query=urlencode(passed)).geturl(),)
    specs = [unquote(spec) for spec in hosts.split(",")] if "host" not in passed else hosts.split(",")
    ports = passed["port"].split(",") if passed.get("port") else [""]
    ports = ports * len(specs) if len(ports) == 1 else ports
    if not all(specs) or len(ports) != len(specs) or not all(port.isdecimal() or not port for port in ports):
        raise UsageError(
            "metadata: give each host of the URL a name, and one port= for all of them or one for each"
        )
    user, at, _ = parts.netloc.rpartition("@")
    rest = {name: value for name, value in passed.items() if name not in ("host", "port")}
    return tuple(
        parts._replace(
            netloc=user + at, query=urlencode({**rest, "host": spec, **({"port": port} if port else {})})
        ).geturl()
        for spec, port in zip(specs, ports, strict=True)
    )


def _schema(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise UsageError("metadata: a schema's name is 1 to 63 lower-case letters, digits and underscores")
    return name


def _is_pooled(pooler: str | None) -> bool:
    if pooler not in (None, "session", "transaction"):
        raise UsageError("metadata: pooler is session or transaction")
    return pooler == "transaction"
