"""ACLs and filters of them: what they consist of, which are legal, and how they are written as catalogue entries.

An ACL allows or denies one principal at one host one operation on the resources that a pattern matches (KIP-11,
KIP-290). Its entry has no value: the key, a JSON array, says everything, so that the same ACL is the same entry whoever
creates it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from warp.errors import ErrorCode, KafkaError
from warp.metadata.entries import KEY_CHARACTERS_MAX
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.authorizer import CLUSTER_NAME
from warp.security.principal import USER, Principal, parse_principal

ANYTHING: Final = "*"
"""As the name of a literal pattern every resource of its type, as a host every host."""
EVERYBODY: Final = Principal(USER, "*")
"""The principal of ACLs that are about everybody."""

NAME_CHARACTERS_MAX: Final = 1_024
"""Of a pattern; topics and groups have at most 249."""

_NETWORKS_REMEMBERED: Final = 1_024
"""Hosts of ACLs are few, and parsing them is slow."""

LEGAL_OPERATIONS: Final = {
    AclResourceType.TOPIC: frozenset(
        {
            AclOperation.READ,
            AclOperation.WRITE,
            AclOperation.CREATE,
            AclOperation.DELETE,
            AclOperation.ALTER,
            AclOperation.DESCRIBE,
            AclOperation.DESCRIBE_CONFIGS,
            AclOperation.ALTER_CONFIGS,
        }
    ),
    AclResourceType.GROUP: frozenset(
        {
            AclOperation.READ,
            AclOperation.DELETE,
            AclOperation.DESCRIBE,
            AclOperation.DESCRIBE_CONFIGS,
            AclOperation.ALTER_CONFIGS,
        }
    ),
    AclResourceType.CLUSTER: frozenset(
        {
            AclOperation.CREATE,
            AclOperation.ALTER,
            AclOperation.DESCRIBE,
            AclOperation.CLUSTER_ACTION,
            AclOperation.DESCRIBE_CONFIGS,
            AclOperation.ALTER_CONFIGS,
            AclOperation.IDEMPOTENT_WRITE,
        }
    ),
    AclResourceType.TRANSACTIONAL_ID: frozenset(
        {AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.TWO_PHASE_COMMIT}
    ),
    AclResourceType.DELEGATION_TOKEN: frozenset({AclOperation.DESCRIBE}),
    AclResourceType.USER: frozenset({AclOperation.CREATE_TOKENS, AclOperation.DESCRIBE_TOKENS}),
}
"""The operations that each type of resource knows, beside ALL."""


class Network(NamedTuple):
    """The addresses that begin with `value` in `bits` bits; of one address all 32 or 128 bits count."""

    version: int
    """4 or 6. IPv4 addresses that are written as IPv6 ones (::ffff:10.0.0.1) are of version 4."""
    bits: int
    value: int


class Acl(NamedTuple):
    """One ACL, in the order of its key. A legal one passes `check_acl`."""

    resource: AclResourceType
    pattern: AclPatternType
    """LITERAL or PREFIXED."""
    name: str
    principal: str
    """TYPE:NAME; `User:*` is everybody."""
    host: str
    """`*`, an IP address, or a network as 10.0.0.0/8."""
    operation: AclOperation
    permission: AclPermissionType

    def __str__(self) -> str:
        return (
            f"{self.permission.name} {self.principal} {self.operation.name} on "
            f"{self.pattern.name} {self.resource.name} {self.name} from {self.host}"
        )


NO_ACLS: Final[Mapping[str, Acl]] = MappingProxyType({})


class AclFilter(NamedTuple):
    """Which ACLs are meant; ANY and None leave a part open."""

    resource: AclResourceType = AclResourceType.ANY
    pattern: AclPatternType = AclPatternType.ANY
    """MATCH: every pattern that the resource of this name falls under."""
    name: str | None = None
    principal: str | None = None
    host: str | None = None
    operation: AclOperation = AclOperation.ANY
    permission: AclPermissionType = AclPermissionType.ANY

    @property
    def exact(self) -> Acl | None:
        """The one ACL that can be meant, when nothing is left open."""
        name, principal, host = self.name, self.principal, self.host
        if (
            name is None
            or principal is None
            or host is None
            or self.resource == AclResourceType.ANY
            or self.pattern in (AclPatternType.ANY, AclPatternType.MATCH)
            or self.operation == AclOperation.ANY
            or self.permission == AclPermissionType.ANY
        ):
            return None
        return Acl(self.resource, self.pattern, name, principal, host, self.operation, self.permission)

    def matches(self, acl: Acl) -> bool:
        """Is this ACL meant? (KIP-290, its table of filters.)"""
        return (
            self.resource in (AclResourceType.ANY, acl.resource)
            and self.pattern in (AclPatternType.ANY, AclPatternType.MATCH, acl.pattern)
            and self._matches_name(acl)
            and self.principal in (None, acl.principal)
            and self.host in (None, acl.host)
            and self.operation in (AclOperation.ANY, acl.operation)
            and self.permission in (AclPermissionType.ANY, acl.permission)
        )

    def _matches_name(self, acl: Acl) -> bool:
        if self.name is None or self.name == acl.name:
            return True
        if self.pattern != AclPatternType.MATCH:
            return False
        return (
            acl.name == ANYTHING if acl.pattern == AclPatternType.LITERAL else self.name.startswith(acl.name)
        )


def check_acl(acl: Acl) -> None:
    """Raises KafkaError (INVALID_REQUEST), which says what is wrong, for an ACL that would never do what it says.

    Kafka's brokers let pass what Kafka's own tool refuses: operations that the type of resource does not know, and
    hosts that are no addresses.
    """
    _check_parts(acl)
    if len(acl_key(acl)) > KEY_CHARACTERS_MAX:
        raise _illegal(f"written as an entry the ACL has more than {KEY_CHARACTERS_MAX} characters")


def _check_parts(acl: Acl) -> None:
    legal = LEGAL_OPERATIONS.get(acl.resource)
    if legal is None:
        raise _illegal(f"{acl.resource.name} is no type of resource that an ACL can guard")
    if acl.pattern not in (AclPatternType.LITERAL, AclPatternType.PREFIXED):
        raise _illegal(f"{acl.pattern.name} is no pattern type for an ACL: use LITERAL or PREFIXED")
    if acl.permission not in (AclPermissionType.ALLOW, AclPermissionType.DENY):
        raise _illegal(f"{acl.permission.name} is no permission for an ACL: use ALLOW or DENY")
    if acl.operation != AclOperation.ALL and acl.operation not in legal:
        raise _illegal(f"{acl.resource.name} has no operation {acl.operation.name}")
    if not acl.name or len(acl.name) > NAME_CHARACTERS_MAX:
        raise _illegal(f"the resource's name has to have 1 to {NAME_CHARACTERS_MAX} characters")
    if acl.resource == AclResourceType.CLUSTER and acl.name != CLUSTER_NAME:
        raise _illegal(f"the only name of the CLUSTER resource is {CLUSTER_NAME}")
    try:
        parse_principal(acl.principal)
        host_network(acl.host)
    except ValueError as error:
        raise _illegal(str(error)) from None


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def acl_key(acl: Acl) -> str:
    """The key of its catalogue entry: the same for the same ACL, and ASCII whatever the names are."""
    return _encode(acl)


def parse_acl_key(key: str) -> Acl:
    """The ACL of an entry. Raises ValueError for what is none, or is written differently."""
    try:
        resource, pattern, name, principal, host, operation, permission = json.loads(key)
        acl = Acl(
            AclResourceType(resource),
            AclPatternType(pattern),
            name,
            principal,
            host,
            AclOperation(operation),
            AclPermissionType(permission),
        )
        if not isinstance(name, str):
            raise ValueError("the resource's name is no text")
        _check_parts(acl)
    except (TypeError, ValueError, AttributeError, RecursionError, KafkaError) as error:
        raise ValueError(f"{key[:200]!r} is no ACL: {error}") from None
    if len(key) > KEY_CHARACTERS_MAX or acl_key(acl) != key:
        raise ValueError(f"{key[:200]!r} is not how this ACL is written")
    return acl


@lru_cache(_NETWORKS_REMEMBERED)
def host_network(host: str) -> Network | None:
    """The network that the host of an ACL names, None for every host. Raises ValueError."""
    if host == ANYTHING:
        return None
    address, slash, bits = host.partition("/")
    if slash and not (bits.isascii() and bits.isdigit()):
        raise ValueError(f"{host[:100]!r} is no network: what follows the slash is a number of bits")
    try:
        # Bits beyond those that count would be a mistake in one or the other.
        network = ipaddress.ip_network(host, strict=True)
    except ValueError as error:
        raise ValueError(f"{host[:100]!r} is neither *, nor an IP address, nor a network: {error}") from None
    if "%" in address:
        raise ValueError(f"{host[:100]!r} has a zone, which clients' addresses are compared without")
    return _plain(Network(network.version, network.prefixlen, int(network.network_address)))


def client_address(host: str) -> Network | None:
    """The address of a client, as its connection tells it; None for a client without one, as on a Unix socket."""
    text = host.strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _plain(Network(address.version, address.max_prefixlen, int(address)))


_MAPPED_BITS: Final = 96
_MAPPED: Final = 0xFFFF
"""The first 96 bits of IPv4 addresses in IPv6 (RFC 4291, 2.5.5.2)."""


def _plain(network: Network) -> Network:
    """An IPv4 network that is written as an IPv6 one becomes itself; others stay."""
    if network.version == 6 and network.bits >= _MAPPED_BITS and network.value >> 32 == _MAPPED:
        return Network(4, network.bits - _MAPPED_BITS, network.value & 0xFFFF_FFFF)
    return network


def _illegal(problem: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, problem)
