"""Which credentials an administrator may set and delete, by Kafka's rules (KIP-554). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import EntryChange
from warp.security.credentials import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    SALT_BYTES_MAX,
    SCRAM_HASHES,
    ScramHash,
    entry_key,
    entry_value,
    make_credential,
    stored_iterations,
)
from warp.security.names import prepare_name

_BY_NUMBER = {int(scram.number): scram for scram in SCRAM_HASHES}


class Deletion(NamedTuple):
    """A credential to be deleted; mechanisms are Kafka's numbers."""

    user: str
    mechanism: int


@dataclass(frozen=True, slots=True)
class Upsertion:
    """A credential to be set, salted and iterated by the client."""

    user: str
    mechanism: int
    iterations: int
    salt: bytes = field(repr=False)
    salted_password: bytes = field(repr=False)


Alteration = Deletion | Upsertion


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to: changes, and per user, in the order of their first mention, why there are none."""

    changes: tuple[EntryChange, ...] = field(repr=False)
    results: Mapping[str, KafkaError | None]
    done: tuple[str, ...]
    """What has been done, in words for the audit log."""


def plan_changes(entries: Mapping[str, str], alterations: Sequence[Alteration]) -> Plan:
    """Each user on its own: all that is asked for it is done, or, where a part of that is wrong, nothing."""
    times = Counter((each.user, each.mechanism) for each in alterations)
    by_user: dict[str, list[Alteration]] = {}
    for each in alterations:
        by_user.setdefault(each.user, []).append(each)
    changes: list[EntryChange] = []
    results: dict[str, KafkaError | None] = {}
    done: list[str] = []
    for user, wanted in by_user.items():
        try:
            made = [_change(entries, each, times[each.user, each.mechanism]) for each in wanted]
        except KafkaError as error:
            results[user] = error
        else:
            results[user] = None
            changes.extend(made)
            done.extend(_in_words(entries, each) for each in wanted)
    return Plan(tuple(changes), results, tuple(done))


def _change(entries: Mapping[str, str], alteration: Alteration, times: int) -> EntryChange:
    scram = _BY_NUMBER.get(alteration.mechanism)
    if scram is None:
        raise KafkaError(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    if times > 1:
        raise KafkaError(
            ErrorCode.DUPLICATE_RESOURCE, f"The {scram.mechanism} credential of a user stands there twice"
        )
    key = entry_key(scram, alteration.user)
    if isinstance(alteration, Deletion):
        if key not in entries:
            raise KafkaError(
                ErrorCode.RESOURCE_NOT_FOUND, f"The user has no {scram.mechanism} credential to delete"
            )
        return EntryChange(key, None)
    _check(scram, alteration)
    credential = make_credential(scram, alteration.iterations, alteration.salt, alteration.salted_password)
    return EntryChange(key, entry_value(credential))


def _check(scram: ScramHash, wanted: Upsertion) -> None:
    try:
        prepared = prepare_name(wanted.user, is_stored=True)
    except ValueError as error:
        raise _unacceptable(f"The user can't be called so: {error}") from None
    if prepared != wanted.user:
        raise _unacceptable("The name of the user changes under SASLprep (RFC 4013); use its prepared form")
    if wanted.iterations < ITERATIONS_MIN:
        raise _unacceptable(f"Too few iterations, {ITERATIONS_MIN} are the least")
    if wanted.iterations > ITERATIONS_MAX:
        raise _unacceptable(f"Too many iterations, {ITERATIONS_MAX} are the most")
    if not 0 < len(wanted.salt) <= SALT_BYTES_MAX:
        raise _unacceptable(f"The salt has to be of 1 to {SALT_BYTES_MAX} bytes")
    if len(wanted.salted_password) != scram.size_bytes:
        raise _unacceptable(f"The salted password has to be of {scram.size_bytes} bytes")


def _unacceptable(problem: str) -> KafkaError:
    return KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, problem)


def _in_words(entries: Mapping[str, str], alteration: Alteration) -> str:
    scram = _BY_NUMBER[alteration.mechanism]
    name = f"{scram.mechanism} of {alteration.user}"
    if isinstance(alteration, Deletion):
        return f"{name} deleted"
    value = entries.get(entry_key(scram, alteration.user))
    before = None if value is None else stored_iterations(scram, value)
    return f"{name} set, {alteration.iterations} iterations (before: {before or 'none'})"
