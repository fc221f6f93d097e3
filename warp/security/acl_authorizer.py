"""The authorizer that decides by ACLs (KIP-11, KIP-290, KIP-679), fed with the catalogue's entries.

Super users may do everything. For the others a matching ACL that denies wins over those that allow, and what no ACL
allows is refused, unless there is no ACL about the resource at all and the agent is set to allow that.

One look at the index answers for all operations on a resource, and is remembered by principal, host and resource. A
change of ACLs makes it forget what that could have altered, and no more: one ACL about a topic costs one decision, not
all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from warp.metadata.entries import EntryChange
from warp.protocol.types import AclOperation, AclPatternType, AclResourceType
from warp.security.acl import ANYTHING, EVERYBODY, Acl, Network, client_address, parse_acl_key
from warp.security.acl_index import DENY_SHIFT, AclIndex, Holdings
from warp.security.authorizer import ALL_OPERATIONS, CLUSTER_NAME
from warp.security.principal import Principal, parse_principal

logger = logging.getLogger(__name__)

DECISIONS_MAX: Final = 32_768
"""What is remembered in all; when there is more, it begins anew. At most some 16 MiB, with topics' longest names."""
SUBJECTS_MAX: Final = 4_096
"""Principals at hosts that are remembered."""
NAME_CHARACTERS_MAX: Final = 249
"""Longer names, which no topic has, are decided each time: whoever asks for such can't fill the memory."""
CHANGES_SINGLED_OUT_MAX: Final = 100
"""Up to so many ACLs changed at once, each makes those decisions forgotten that it concerns; with more, all are."""
VISITS_MAX: Final = 10_000
"""Changes times subjects: beyond that it is cheaper to begin anew, too."""


class _Subject:
    """A principal at a host, and what is known about it."""

    __slots__ = ("address", "granted", "is_super", "own", "some")

    def __init__(self, host: str, own: Holdings | None, *, is_super: bool) -> None:
        self.is_super = is_super
        self.own = own
        """The ACLs about the principal itself."""
        self.address: Network | None = client_address(host)
        self.granted: tuple[dict[str, int], ...] = tuple({} for _ in AclResourceType)
        """Per type of resource the operations allowed, by name."""
        self.some: dict[tuple[AclOperation, AclResourceType], bool] = {}


class AclAuthorizer:
    """Decides by the ACLs that it was told of. See Authorizer."""

    is_on = True

    def __init__(
        self,
        *,
        super_users: Collection[Principal] = (),
        allow_if_no_acl: bool = False,
        only_logs: bool = False,
        decisions_max: int = DECISIONS_MAX,
    ) -> None:
        self.only_logs = only_logs
        self._super_users = frozenset(super_users)
        self._allow_if_no_acl = allow_if_no_acl
        self._decisions_max = decisions_max
        self._index = AclIndex()
        self._acls: dict[str, Acl] = {}
        self._subjects: dict[Principal, dict[str, _Subject]] = {}
        self._subject_count = 0
        self._decision_count = 0
        """No fewer than are remembered."""

    # ---- the ACLs ----

    @property
    def acls(self) -> Mapping[str, Acl]:
        """The ACLs in force, by the keys of their entries, as they are whenever one looks."""
        return MappingProxyType(self._acls)

    def entries_changed(self, entries: Mapping[str, str], changes: Sequence[EntryChange]) -> None:
        """Entries have come or gone; at first, all have come. Those that can't be read are logged and left out."""
        changed = [acl for change in changes if (acl := self._apply(change)) is not None]
        if len(changed) > CHANGES_SINGLED_OUT_MAX or len(changed) * self._subject_count > VISITS_MAX:
            self._forget_everything()
        else:
            for acl in changed:
                self._forget(acl)

    def _apply(self, change: EntryChange) -> Acl | None:
        """Take an ACL in or out; which, if that alters anything."""
        acl = self._acls.get(change.key)
        if (acl is not None) == (change.value is not None):
            return None
        return self._take_in(change.key) if acl is None else self._take_out(change.key)

    def _take_in(self, key: str) -> Acl | None:
        try:
            acl = parse_acl_key(key)
        except ValueError as error:
            logger.error("an ACL is not in force: %s", error)
            return None
        self._index.add(acl)
        self._acls[key] = acl
        return acl

    def _take_out(self, key: str) -> Acl:
        acl = self._acls.pop(key)
        self._index.remove(acl)
        return acl

    # ---- decisions ----

    def allows(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """See Authorizer."""
        return self.only_logs or self.permits(principal, host, operation, resource, name)

    def permits(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """See Authorizer."""
        hosts = self._subjects.get(principal)
        subject = hosts.get(host) if hosts is not None else None
        if subject is None:
            subject = self._meet(principal, host)
        bits = subject.granted[resource].get(name)
        if bits is None:
            bits = self._decide(subject, resource, name)
        return bits >> operation & 1 == 1

    def operations(self, principal: Principal, host: str, resource: AclResourceType, name: str) -> int:
        """See Authorizer."""
        if self.only_logs:
            return ALL_OPERATIONS
        subject = self._subject(principal, host)
        known = subject.granted[resource].get(name)
        return self._decide(subject, resource, name) if known is None else known

    def allows_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """See Authorizer."""
        return self.only_logs or self.permits_some(principal, host, operation, resource)

    def permits_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """See Authorizer."""
        if resource == AclResourceType.CLUSTER:
            return self.permits(principal, host, operation, resource, CLUSTER_NAME)
        subject = self._subject(principal, host)
        known = subject.some.get((operation, resource))
        if known is None:
            known = subject.some[operation, resource] = (
                subject.is_super
                # A name that nobody has thought of.
                or (self._allow_if_no_acl and not self._index.speaks_of_all(resource))
                or self._index.grants_some(subject.own, subject.address, resource, operation)
            )
        return known

    def _decide(self, subject: _Subject, resource: AclResourceType, name: str) -> int:
        """The operations that are permitted, as a bit field; remembers them."""
        if subject.is_super:
            decided = ALL_OPERATIONS
        else:
            rights = self._index.rights(subject.own, subject.address, resource, name)
            if not rights and self._allow_if_no_acl and not self._index.speaks_of(resource, name):
                decided = ALL_OPERATIONS
            else:
                decided = rights & ~(rights >> DENY_SHIFT) & ALL_OPERATIONS
        if len(name) <= NAME_CHARACTERS_MAX:
            if self._decision_count >= self._decisions_max:
                self._forget_everything()
            else:
                subject.granted[resource][name] = decided
                self._decision_count += 1
        return decided

    def _subject(self, principal: Principal, host: str) -> _Subject:
        hosts = self._subjects.get(principal)
        subject = hosts.get(host) if hosts is not None else None
        return self._meet(principal, host) if subject is None else subject

    def _meet(self, principal: Principal, host: str) -> _Subject:
        if self._subject_count >= SUBJECTS_MAX:
            self._forget_everything()
        own = self._index.holdings(principal)
        subject = _Subject(host, own, is_super=principal in self._super_users)
        self._subjects.setdefault(principal, {})[host] = subject
        self._subject_count += 1
        return subject

    # ---- forgetting ----

    def _forget(self, acl: Acl) -> None:
        """What this ACL, which came or went, could have altered."""
        principal = parse_principal(acl.principal)
        own = self._index.holdings(principal)
        for subject in self._subjects.get(principal, {}).values():
            subject.own = own
        for subject in self._concerned(principal):
            decided = subject.granted[acl.resource]
            if acl.pattern == AclPatternType.LITERAL and acl.name != ANYTHING:
                decided.pop(acl.name, None)
            else:
                decided.clear()
            subject.some.clear()

    def _concerned(self, principal: Principal) -> Iterator[_Subject]:
        # Where no ACL means that everybody may, the first and the last one concern everybody.
        everybody = principal == EVERYBODY or self._allow_if_no_acl
        hosts: Iterable[dict[str, _Subject]] = (
            self._subjects.values() if everybody else (self._subjects.get(principal, {}),)
        )
        for of_principal in hosts:
            yield from of_principal.values()

    def _forget_everything(self) -> None:
        self._subjects.clear()
        self._subject_count = 0
        self._decision_count = 0
