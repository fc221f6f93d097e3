"""Entries of the catalogue beside topics: ACLs, credentials, quotas and cluster-wide configs.

All of them are small, are read by every agent whenever they change, and are changed by administrators alone. So they
share one table, one version (the catalogue's) and one way of changing: whoever changes some has decided by the entries
of a version, and the change is refused when others of that kind have changed since.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol


class EntryKind(enum.StrEnum):
    """What an entry is. The modules that own a kind define what its keys and values look like."""

    ACL = "acl"
    CREDENTIAL = "credential"
    QUOTA = "quota"
    CONFIG = "config"


KEY_CHARACTERS_MAX = 4_096
VALUE_CHARACTERS_MAX = 65_536
ENTRIES_MAX = 100_000
"""Of one kind."""


class EntryChange(NamedTuple):
    """One entry to be set to a value, or with None to be deleted. Deleting what is not there does nothing."""

    key: str
    value: str | None


Decide = Callable[[Mapping[str, str]], Sequence[EntryChange]]
"""What to change about the entries of one kind, by key. Pure: it is called again when others were faster. It raises
KafkaError to refuse."""


class Entries(Protocol):
    """The entries as this agent knows them."""

    def entries(self, kind: EntryKind) -> Mapping[str, str]:
        """All entries of a kind, by key, as of the snapshot at hand."""

    async def change_entries(self, kind: EntryKind, decide: Decide) -> Sequence[EntryChange]:
        """Change entries as `decide` says of the newest ones; returns what it said in the end.

        When it returns, this agent knows the change and the others have been told. Raises what `decide` raises,
        KafkaError (POLICY_VIOLATION) beyond ENTRIES_MAX, and MetadataError.
        """
