"""ACLs arranged so that a question about one resource touches only the few that can matter.

What is kept of an ACL is a bit in a number, its *rights*: bit n allows operation n, bit n + 16 denies it, so that all
rules for a client and a resource are joined by `or`, and one look answers for every operation. The way to them is:
principal, type of resource, then the literal name, or the prefixes that the name begins with, then the host. Adding or
removing an ACL changes the numbers on its own way alone.

Prefixes stand in a sorted list, each with the longest other prefix that it begins with. The longest prefix of a name is
the last one in the list that does not come after the name, or else among those that this one begins with; the shorter
ones hang on it. So a name costs one binary search, whatever the number of prefixes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Final, Generic, TypeVar

from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import ANYTHING, EVERYBODY, Acl, Network, host_network
from warp.security.authorizer import ALL_OPERATIONS
from warp.security.principal import Principal, parse_principal

T = TypeVar("T")

DENY_SHIFT: Final = 16
"""How far the bits that deny stand above those that allow."""

_ADDRESS_BITS: Final = {4: 32, 6: 128}
_IMPLIED: Final = {
    AclOperation.READ: AclOperation.DESCRIBE,
    AclOperation.WRITE: AclOperation.DESCRIBE,
    AclOperation.DELETE: AclOperation.DESCRIBE,
    AclOperation.ALTER: AclOperation.DESCRIBE,
    AclOperation.ALTER_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
}
"""What comes with an operation when that is allowed. A denial brings nothing."""


def granted(rights: int) -> int:
    """The operations that rights come to, as a bit field: those allowed and not denied."""
    return rights & ~(rights >> DENY_SHIFT) & ALL_OPERATIONS


def _rights(operation: AclOperation, permission: AclPermissionType) -> int:
    """The rights of one ACL."""
    bits = ALL_OPERATIONS if operation == AclOperation.ALL else 1 << operation
    if permission == AclPermissionType.DENY:
        return bits << DENY_SHIFT
    return bits | (1 << _IMPLIED[operation] if operation in _IMPLIED else 0)


class Grants:
    """What one principal may and must not do to one pattern, by host."""

    __slots__ = ("_rules", "by_network", "everywhere")

    def __init__(self) -> None:
        self.everywhere = 0
        """The rights that hold at every host."""
        self.by_network: dict[tuple[int, int], dict[int, int]] = {}
        """Those of networks: per version and number of bits that count, by the value of these bits."""
        self._rules: dict[Network | None, dict[tuple[AclOperation, AclPermissionType], int]] = {}
        """The ACLs, counted: one network may be written in two ways."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no ACL left."""
        return not self._rules

    def add(self, acl: Acl) -> None:
        """Count an ACL in."""
        network = host_network(acl.host)
        rules = self._rules.setdefault(network, {})
        rule = acl.operation, acl.permission
        rules[rule] = rules.get(rule, 0) + 1
        self._settle(network)

    def remove(self, acl: Acl) -> None:
        """Leave an ACL out that was counted in."""
        network = host_network(acl.host)
        rules = self._rules[network]
        rule = acl.operation, acl.permission
        rules[rule] -= 1
        if not rules[rule]:
            del rules[rule]
        if not rules:
            del self._rules[network]
        self._settle(network)

    def rights(self, address: Network | None) -> int:
        """The rights at this address."""
        found = self.everywhere
        if address is not None:
            for (version, bits), by_value in self.by_network.items():
                if version == address.version:
                    found |= by_value.get(address.value >> (address.bits - bits), 0)
        return found

    def _settle(self, network: Network | None) -> None:
        """Work out the rights of one network anew; there are at most two rules for each operation."""
        rights = 0
        for operation, permission in self._rules.get(network, ()):
            rights |= _rights(operation, permission)
        if network is None:
            self.everywhere = rights
            return
        size = network.version, network.bits
        value = network.value >> (_ADDRESS_BITS[network.version] - network.bits)
        by_value = self.by_network.setdefault(size, {})
        if rights:
            by_value[value] = rights
        else:
            by_value.pop(value, None)
        if not by_value:
            del self.by_network[size]


class _Prefix(Generic[T]):
    """One prefix; `parent` is the longest other one that it begins with."""

    __slots__ = ("parent", "text", "value")

    def __init__(self, text: str, value: T, parent: _Prefix[T] | None) -> None:
        self.text = text
        self.value = value
        self.parent = parent


class PrefixMap(Generic[T]):
    """Values by prefix, to be found by what begins with it.

    Finding takes a binary search. Adding and removing shift a list of references, and hang those prefixes anew that
    begin with the one in question.
    """

    __slots__ = ("_nodes", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        """In order."""
        self._nodes: list[_Prefix[T]] = []
        """In the same order."""

    def __len__(self) -> int:
        return len(self._texts)

    def items(self) -> list[tuple[str, T]]:
        """All prefixes with their values, in order."""
        return [(node.text, node.value) for node in self._nodes]

    def get(self, text: str) -> T | None:
        """The value of exactly this prefix."""
        place = bisect_left(self._texts, text)
        if place < len(self._texts) and self._texts[place] == text:
            return self._nodes[place].value
        return None

    def longest(self, name: str) -> _Prefix[T] | None:
        """The longest prefix that a name begins with; the others are its parent, the parent of that, and so on."""
        place = bisect_right(self._texts, name)
        if not place:
            return None
        node: _Prefix[T] | None = self._nodes[place - 1]
        while node is not None and not name.startswith(node.text):
            node = node.parent
        return node

    def matching(self, name: str) -> list[T]:
        """The values of all prefixes that a name begins with, the longest first."""
        found = []
        node = self.longest(name)
        while node is not None:
            found.append(node.value)
            node = node.parent
        return found

    def add(self, text: str, value: T) -> None:
        """Add a prefix that is not there yet."""
        parent = self.longest(text)
        added = _Prefix(text, value, parent)
        place = bisect_left(self._texts, text)
        self._hang(place, text, parent, added)
        self._texts.insert(place, text)
        self._nodes.insert(place, added)

    def remove(self, text: str) -> None:
        """Remove a prefix that is there."""
        place = bisect_left(self._texts, text)
        removed = self._nodes[place]
        del self._texts[place], self._nodes[place]
        self._hang(place, text, removed, removed.parent)

    def _hang(self, place: int, text: str, old: _Prefix[T] | None, new: _Prefix[T] | None) -> None:
        """Give those from `place` on that begin with `text`, and whose parent is `old`, a new one."""
        nodes = self._nodes
        while place < len(nodes) and nodes[place].text.startswith(text):
            if nodes[place].parent is old:
                nodes[place].parent = new
            place += 1


class _Patterns:
    """The patterns of one principal for one type of resource."""

    __slots__ = ("literal", "prefixed")

    def __init__(self) -> None:
        self.literal: dict[str, Grants] = {}
        self.prefixed: PrefixMap[Grants] = PrefixMap()

    def grants(self, pattern: AclPatternType, name: str) -> Grants | None:
        return self.literal.get(name) if pattern == AclPatternType.LITERAL else self.prefixed.get(name)

    def put(self, pattern: AclPatternType, name: str) -> Grants:
        made = Grants()
        if pattern == AclPatternType.LITERAL:
            self.literal[name] = made
        else:
            self.prefixed.add(name, made)
        return made

    def drop(self, pattern: AclPatternType, name: str) -> None:
        if pattern == AclPatternType.LITERAL:
            del self.literal[name]
        else:
            self.prefixed.remove(name)

    def rights(self, address: Network | None, name: str) -> int:
        # This is what an uncached decision costs: most grants are the same everywhere, and need no call.
        literal = self.literal
        found = 0
        if (grants := literal.get(name)) is not None:
            found = grants.rights(address) if grants.by_network else grants.everywhere
        if (grants := literal.get(ANYTHING)) is not None:
            found |= grants.rights(address) if grants.by_network else grants.everywhere
        node = self.prefixed.longest(name)
        while node is not None:
            grants = node.value
            found |= grants.rights(address) if grants.by_network else grants.everywhere
            node = node.parent
        return found

    def rights_beginning(self, address: Network | None, name: str) -> int:
        """The rights to every resource whose name begins like this and goes on in a way that nobody has thought of."""
        found = 0
        if (grants := self.literal.get(ANYTHING)) is not None:
            found |= grants.rights(address)
        for grants in self.prefixed.matching(name):
            found |= grants.rights(address)
        return found


Holdings = dict[AclResourceType, _Patterns]
"""The patterns of one principal, by type of resource."""


class AclIndex:
    """All ACLs. Knows nothing of super users, and decides nothing."""

    def __init__(self) -> None:
        self._by_principal: dict[Principal, Holdings] = {EVERYBODY: {}}
        self._of_everybody = self._by_principal[EVERYBODY]
        """Always there."""
        self._spoken_of: dict[AclResourceType, _Spoken] = {}

    def add(self, acl: Acl) -> None:
        """Add a legal ACL that is not there yet."""
        by_resource = self._by_principal.setdefault(parse_principal(acl.principal), {})
        patterns = by_resource.get(acl.resource)
        if patterns is None:
            patterns = by_resource[acl.resource] = _Patterns()
        (patterns.grants(acl.pattern, acl.name) or patterns.put(acl.pattern, acl.name)).add(acl)
        spoken = self._spoken_of.get(acl.resource)
        if spoken is None:
            spoken = self._spoken_of[acl.resource] = _Spoken()
        spoken.add(acl)

    def remove(self, acl: Acl) -> None:
        """Remove an ACL that is there."""
        principal = parse_principal(acl.principal)
        by_resource = self._by_principal[principal]
        patterns = by_resource[acl.resource]
        grants = patterns.grants(acl.pattern, acl.name)
        assert grants is not None, "the ACL is not there"
        grants.remove(acl)
        if grants.is_empty:
            patterns.drop(acl.pattern, acl.name)
        if not patterns.literal and not patterns.prefixed:
            del by_resource[acl.resource]
        if not by_resource and principal != EVERYBODY:
            del self._by_principal[principal]
        self._spoken_of[acl.resource].remove(acl)

    def holdings(self, principal: Principal) -> Holdings | None:
        """What there is about a principal itself. Good until an ACL about it comes or goes."""
        return self._by_principal.get(principal)

    def rights(
        self, own: Holdings | None, address: Network | None, resource: AclResourceType, name: str
    ) -> int:
        """All rights of a principal at an address to one resource: by what it holds itself, and everybody's."""
        patterns = self._of_everybody.get(resource)
        found = 0 if patterns is None else patterns.rights(address, name)
        if own is not None and (patterns := own.get(resource)) is not None:
            found |= patterns.rights(address, name)
        return found

    def speaks_of(self, resource: AclResourceType, name: str) -> bool:
        """Whether there is any ACL, whoever it is about, with a pattern that matches this resource."""
        spoken = self._spoken_of.get(resource)
        return spoken is not None and spoken.speaks_of(name)

    def speaks_of_all(self, resource: AclResourceType) -> bool:
        """Whether there is an ACL about every resource of a type."""
        spoken = self._spoken_of.get(resource)
        return spoken is not None and ANYTHING in spoken.literal

    def grants_some(
        self,
        own: Holdings | None,
        address: Network | None,
        resource: AclResourceType,
        operation: AclOperation,
    ) -> bool:
        """Whether the ACLs let it do that to any resource of the type that there is or might be (KIP-679).

        An ACL that allows counts unless one that denies dominates it: one for everything, for the same literal name,
        or for a prefix of what it allows. Only the ACLs of the principal and of everybody are looked at.
        """
        holders = (own or {}, self._of_everybody)
        kinds = [patterns for holder in holders if (patterns := holder.get(resource)) is not None]

        def allows_beginning(name: str) -> bool:
            rights = 0
            for patterns in kinds:
                rights |= patterns.rights_beginning(address, name)
            return bool(granted(rights) >> operation & 1)

        def allows(name: str) -> bool:
            return bool(granted(self.rights(own, address, resource, name)) >> operation & 1)

        # No prefix is empty, so that only what holds for every resource counts here.
        if allows_beginning(""):
            return True
        return any(
            any(allows_beginning(text) for text, _ in patterns.prefixed.items())
            or any(allows(name) for name in patterns.literal if name != ANYTHING)
            for patterns in kinds
        )


class _Spoken:
    """The patterns that any ACL for one type of resource has, whoever it is about, and how many have each."""

    __slots__ = ("literal", "prefixed", "prefixes")

    def __init__(self) -> None:
        self.literal: Counter[str] = Counter()
        self.prefixes: Counter[str] = Counter()
        self.prefixed: PrefixMap[None] = PrefixMap()

    def add(self, acl: Acl) -> None:
        if acl.pattern == AclPatternType.LITERAL:
            self.literal[acl.name] += 1
            return
        self.prefixes[acl.name] += 1
        if self.prefixes[acl.name] == 1:
            self.prefixed.add(acl.name, None)

    def remove(self, acl: Acl) -> None:
        counts = self.literal if acl.pattern == AclPatternType.LITERAL else self.prefixes
        counts[acl.name] -= 1
        if not counts[acl.name]:
            del counts[acl.name]
            if acl.pattern == AclPatternType.PREFIXED:
                self.prefixed.remove(acl.name)

    def speaks_of(self, name: str) -> bool:
        return name in self.literal or ANYTHING in self.literal or self.prefixed.longest(name) is not None
