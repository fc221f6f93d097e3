"""Which of this package's errors one of asyncpg's is. The one place where PostgreSQL's error codes are known.

Codes are those of appendix A of PostgreSQL's manual. Whether anything was changed depends on where an error came up:
before COMMIT is sent a lost connection means a rollback, afterwards nobody knows.
"""

from __future__ import annotations

import asyncpg
from asyncpg.exceptions import (
    ConnectionDoesNotExistError,
    InternalClientError,
    InvalidCachedStatementError,
    TargetServerAttributeNotMatched,
)

from warp.errors import (
    MetadataContention,
    MetadataCorrupt,
    MetadataError,
    MetadataFull,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
)

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError, OSError)
"""All that asyncpg raises when it is used rightly; a timeout and what goes wrong with TLS are OSErrors."""

SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"
COMPLETION_UNKNOWN = "40003"
DISK_FULL, TOO_MANY_CONNECTIONS = "53100", "53300"
READ_ONLY_TRANSACTION = "25006"
INSUFFICIENT_PRIVILEGE = "42501"
NO_SUCH_PREPARED_STATEMENT, PREPARED_STATEMENT_EXISTS = "26000", "42P05"
NO_SUCH_TABLE, NO_SUCH_COLUMN = "42P01", "42703"

NO_PRIMARY = "none of the servers takes writes: each is a standby, is read-only or does not answer"

_UNAVAILABLE_CLASSES = ("08", "28", "53", "57", "58")
"""Lost connections, credentials, resources, an operator's doings, the system under the server."""
_UNAVAILABLE = ("25P02", "25P03", "3D000")


def is_lost(error: BaseException) -> bool:
    """Is the connection gone, or in an unknown state, after this error?"""
    if isinstance(error, ConnectionDoesNotExistError | InternalClientError | OSError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        # After what an operator did (57P01 to 57P05), and an idle transaction's end, the server hangs up.
        return (error.sqlstate or "").startswith(("08", "57P", "25P03"))
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)


def leaves_stale(error: BaseException) -> bool:
    """Should the connection be replaced? A server that takes no writes any more may have another one beside it."""
    return is_lost(error) or code_of(error) in (READ_ONLY_TRANSACTION, COMPLETION_UNKNOWN)


def code_of(error: BaseException) -> str:
    """PostgreSQL's code of an error; '' when it is not the server's."""
    return (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""


def map_error(error: Exception, *, writing: bool = False, committing: bool = False) -> MetadataError:
    """This package's error for one of DRIVER_ERRORS.

    `writing`: it came out of a statement that writes in a transaction of its own. `committing`: out of COMMIT, where
    but few errors are certain to mean that nothing was changed.
    """
    code = code_of(error)
    if (writing or committing) and (is_lost(error) or code == COMPLETION_UNKNOWN):
        return OutcomeUnknown(f"the connection to PostgreSQL was lost ({describe(error)})")
    if committing and not code.startswith(("23", "40")):
        return OutcomeUnknown(f"PostgreSQL did not say whether it has committed ({describe(error)})")
    return _map_code(code, error)


def _map_code(code: str, error: Exception) -> MetadataError:
    text = describe(error)
    if isinstance(error, TargetServerAttributeNotMatched):
        return MetadataUnavailable(NO_PRIMARY)
    if isinstance(error, InvalidCachedStatementError):
        return MetadataContention(f"a newer release has changed a table meanwhile ({text})")
    if code in (SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE):
        return MetadataContention(f"another transaction was in the way ({text})")
    if code == DISK_FULL:
        return MetadataFull(f"PostgreSQL's disk is full ({text}): free some space")
    if code == READ_ONLY_TRANSACTION:
        # Others than this connection's server may take them, once a failover is over.
        return MetadataUnavailable("PostgreSQL takes no writes: this is a standby, or set to read-only")
    if code == INSUFFICIENT_PRIVILEGE:
        return MetadataReadOnly(f"the PostgreSQL role lacks rights ({text}): grant them")
    if code in (NO_SUCH_PREPARED_STATEMENT, PREPARED_STATEMENT_EXISTS):
        return MetadataUnavailable(
            "a pooler stands before PostgreSQL that shares its connections: add pooler=transaction to the URL"
        )
    if code.startswith("XX0"):
        return MetadataCorrupt(f"PostgreSQL reports damage ({text}): see its log")
    if code.startswith(_UNAVAILABLE_CLASSES) or code in _UNAVAILABLE:
        return MetadataUnavailable(f"PostgreSQL could not serve ({text})")
    if is_lost(error):
        return MetadataUnavailable(f"the connection to PostgreSQL was lost ({text})")
    return MetadataError(f"PostgreSQL: {text}")


def describe(error: BaseException) -> str:
    """An error in one line, with its code. asyncpg's errors name no passwords."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    text = " ".join(str(error).split()) or type(error).__name__
    code = code_of(error)
    return f"{text}, {code}" if code else text
