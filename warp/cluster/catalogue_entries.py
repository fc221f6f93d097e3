"""What becomes of a snapshot's entries when some change, and which changes are refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import (
    ENTRIES_MAX,
    KEY_CHARACTERS_MAX,
    VALUE_CHARACTERS_MAX,
    EntryChange,
    EntryKind,
)

EntriesByKind = Mapping[EntryKind, MappingProxyType[str, str]]

NO_ENTRIES: EntriesByKind = MappingProxyType({kind: MappingProxyType({}) for kind in EntryKind})


def checked_changes(entries: Mapping[str, str], wanted: Sequence[EntryChange]) -> list[EntryChange]:
    """Those of the changes that change anything; of several to one key the last.

    Raises KafkaError: INVALID_REQUEST for a key or a value that can't be stored, POLICY_VIOLATION beyond ENTRIES_MAX.
    """
    last = {change.key: change for change in wanted}
    changes = [change for change in last.values() if entries.get(change.key) != change.value]
    count = len(entries)
    for key, value in changes:
        _check_text("The key", key, KEY_CHARACTERS_MAX)
        _check_text("The value", value or "", VALUE_CHARACTERS_MAX)
        if value is None:
            count -= 1
        elif key not in entries:
            count += 1
    if count > max(ENTRIES_MAX, len(entries)):
        problem = (
            f"There would be {count} entries of this kind, and {ENTRIES_MAX} are the most that there may be"
        )
        raise KafkaError(ErrorCode.POLICY_VIOLATION, problem)
    return changes


def are_in_place(entries: Mapping[str, str], changes: Sequence[EntryChange]) -> bool:
    """Are the entries as these changes leave them?"""
    return not any(entries.get(key) != value for key, value in changes)


def apply_changes(
    entries: EntriesByKind, changes: Mapping[EntryKind, Sequence[EntryChange]], *, are_all: bool
) -> tuple[EntriesByKind, dict[EntryKind, list[EntryChange]]]:
    """The entries after changes, and those of the changes that made a difference. Kinds without any stay the same.

    With `are_all` an entry that is in none of the changes is gone.
    """
    made: dict[EntryKind, list[EntryChange]] = {}
    for kind in EntryKind:
        before = entries[kind]
        found = changes.get(kind, ())
        real = [change for change in found if before.get(change.key) != change.value]
        if are_all:
            real += [
                EntryChange(key, None) for key in sorted(before.keys() - {change.key for change in found})
            ]
        if real:
            made[kind] = real
    if not made:
        return entries, made
    after = dict(entries)
    for kind, real in made.items():
        # The whole kind is copied, which costs a tenth of the look at the store where there are 10,000. The copy of a
        # dict: a new one out of the proxy would go through it key by key.
        copy = entries[kind].copy()
        for key, value in real:
            if value is None:
                copy.pop(key, None)
            else:
                copy[key] = value
        after[kind] = MappingProxyType(copy)
    return MappingProxyType(after), made


def _check_text(what: str, text: str, characters_max: int) -> None:
    if len(text) > characters_max:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{what} is longer than {characters_max} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{what} is not Unicode") from None
    if "\0" in text:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{what} has a NUL in it")
