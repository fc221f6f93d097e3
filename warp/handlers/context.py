"""What a handler may reach: the services of its agent, and the circumstances of its request.

Services stand in one frozen object that the agent builds at start, so that a handler's dependencies can be read in one
place and a test can put a fake in any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from warp.errors import ErrorCode, KafkaError
from warp.lifecycle.backlog import NOBODY, HoldBack
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.acl import NO_ACLS, Acl
from warp.security.audit import REFUSALS_NAMED_MAX, Audit
from warp.security.authorizer import OPEN, Authorizer
from warp.security.principal import ANONYMOUS, Principal
from warp.security.quotas.quotas import UNLIMITED, Quotas

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.cluster.catalogue import CatalogueService
    from warp.cluster.discovery import Caller, Discovery
    from warp.cluster.producer_ids import ProducerIds
    from warp.groups.coordinator import GroupCoordinator
    from warp.ids import BrokerId
    from warp.log.fetch import FetchService
    from warp.log.memory import MemoryBudget
    from warp.log.offsets import OffsetService
    from warp.log.produce import ProduceService
    from warp.protocol.messages.api_versions import ApiVersion
    from warp.security.mechanisms import Mechanisms

LISTENER_NAME = "PLAINTEXT"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a TCP port, as clients or sockets are told them."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """The settings that handlers decide by; in brackets Kafka's name for each.

    Those that can be changed while the agent runs are in `catalogue.defaults`.
    """

    described_partitions_max: int = 2000
    """Partitions in one DescribeTopicPartitions answer [max.request.partition.size.limit]."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers call."""

    cluster_id: str
    broker_id: BrokerId
    """This agent's."""
    clock: Clock
    discovery: Discovery
    catalogue: CatalogueService
    produce: ProduceService
    fetch: FetchService
    offsets: OffsetService
    producer_ids: ProducerIds
    groups: GroupCoordinator
    answer_memory: MemoryBudget
    """What large answers are charged to until they are written."""
    audit: Audit
    settings: HandlerSettings = field(default_factory=HandlerSettings)
    authorizer: Authorizer = OPEN
    acls: Mapping[str, Acl] = field(default_factory=lambda: NO_ACLS)
    """The ACLs in force, by the keys of their entries."""
    mechanisms: Mechanisms | None = None
    """How clients of SASL listeners authenticate; None where there is no such listener."""
    quotas: Quotas = UNLIMITED
    """What clients may use in a time."""
    hold_back: HoldBack = NOBODY
    """For how long producers are held back because too much waits to be merged."""


class SaslOutcome(NamedTuple):
    """What one token has come to; with an error the connection ends once it has been told."""

    error: ErrorCode
    message: str | None
    """For the client; None without an error."""
    token: bytes
    lifetime_ms: int
    """After which it has to authenticate again (KIP-368); 0: never, or not yet done."""


class Authentication(Protocol):
    """Of one connection on a SASL listener, as the handlers of its two APIs see it (`warp.server.authentication`)."""

    def handshake(self, mechanism: str, version: int) -> tuple[ErrorCode, tuple[str, ...]]:
        """A SaslHandshake of that version: the error for its answer, and the mechanisms that are enabled."""

    async def authenticate(self, token: bytes, version: int) -> SaslOutcome:
        """A token of the client, in a SaslAuthenticate of that version."""


def _no_mute(milliseconds: int) -> None:
    """A client without a connection is not read from anyway."""


@dataclass(slots=True)
class Client:
    """What is known of the peer of one connection, for handlers and log lines."""

    address: str
    advertised: Endpoint
    """This agent's address in the eyes of the peer: that of the listener that it came in on."""
    listener: int = 0
    """The place of that listener among those of the agent."""
    principal: Principal = ANONYMOUS
    """Who it is; another one once it has authenticated."""
    protocol: str = "PLAINTEXT"
    """That of the listener: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    is_authenticated: bool = True
    """Whether it is known who it is: False on SASL listeners, and on those with TLS, until then."""
    authentication: Authentication | None = None
    """How it authenticates, on SASL listeners alone."""
    software: str = "unknown"
    """Name and version, once ApiVersions has told them (KIP-511)."""
    used_s: float | None = None
    """When it has last produced or fetched (monotonic): its client was told to come here."""
    rack: str | None = None
    """The rack that it has named in a Fetch, when that is this agent's zone (KIP-392)."""
    caller: Caller | None = None
    """What discovery knows of it, once it has asked whom to talk to."""
    mute: Callable[[int], None] = _no_mute
    """Has nothing read from it, and nothing started that was read, for so many milliseconds from now on."""

    @property
    def host(self) -> str:
        """The host of `address`; "" where that is none."""
        return self.address.rpartition(":")[0].strip("[]")

    def gone(self) -> None:
        """The connection is over."""
        if self.caller is not None:
            self.caller.leave()
            self.caller = None


class RequestContext:
    """The circumstances of one request."""

    __slots__ = (
        "advertised",
        "client",
        "client_id",
        "denied",
        "denied_count",
        "error",
        "services",
        "throttle_ms",
        "version",
    )

    def __init__(
        self,
        services: Services,
        advertised: list[ApiVersion],
        client: Client,
        client_id: str | None,
        version: int,
    ) -> None:
        self.services = services
        self.advertised = advertised
        """The APIs that the agent serves; the same list for all requests, which nobody changes."""
        self.client = client
        self.client_id = client_id
        self.version = version
        self.error = ErrorCode.NONE
        """The first error of the answer, for the metrics; handlers tell it by `note`."""
        self.denied: list[tuple[AclOperation, AclResourceType, str]] = []
        """What the client was refused, the first few, for the audit log."""
        self.denied_count = 0
        self.throttle_ms = 0
        """How long the client is held back, as its answer says."""

    def allows(
        self,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
        *,
        is_asked_for: bool = True,
    ) -> bool:
        """May the client? A refusal is noted for the audit log where the client has named the resource itself.

        Where the authorizer only logs, the client may after all.
        """
        client, authorizer = self.client, self.services.authorizer
        if authorizer.permits(client.principal, client.host, operation, resource, name):
            return True
        if is_asked_for:
            self.refused(operation, resource, name)
        return authorizer.only_logs

    @property
    def is_guarded(self) -> bool:
        """False where nobody is ever refused anything: hot paths need not ask."""
        return self.services.authorizer.is_on

    def refused(self, operation: AclOperation, resource: AclResourceType, name: str) -> None:
        """Note a refusal for the audit log."""
        self.denied_count += 1
        if len(self.denied) < REFUSALS_NAMED_MAX:
            self.denied.append((operation, resource, name))

    def changed(self, action: str, **facts: object) -> None:
        """Tell the audit log what the client has changed, see `Audit.changed`."""
        self.services.audit.changed(self.client.principal, self.client.address, action, **facts)

    def changed_each(self, action: str, items: Iterable[str], **facts: object) -> None:
        """Tell the audit log to what the client has done the same, see `Audit.changed_each`. Without any, nothing."""
        client = self.client
        self.services.audit.changed_each(client.principal, client.address, action, list(items), **facts)

    @contextmanager
    def telling_each(self, action: str, items: Sequence[str], **facts: object) -> Iterator[None]:
        """Tell the audit log of a change that is made within; `items` is filled meanwhile.

        Where that fails midway it may have been made nevertheless, and the line says "perhaps".
        """
        try:
            yield
        except KafkaError:  # refused
            raise
        except BaseException:
            self.changed_each(f"perhaps {action}", items, **facts)
            raise
        self.changed_each(action, items, **facts)

    def throttle(self, milliseconds: int) -> None:
        """Hold the client back for so long from now on: the answer says so, and its connection is not read from."""
        if milliseconds > self.throttle_ms:
            self.throttle_ms = milliseconds
            self.client.mute(milliseconds)

    def note(self, error: ErrorCode) -> ErrorCode:
        """Remember that the answer carries `error`; returns it, so that it can be used on the way into the answer."""
        if error and not self.error:
            self.error = error
        return error


class Later:
    """An answer that follows when `outcome` is there: `build` makes the response of its result.

    A handler returns it when all that is left of the request is waiting, so that no task has to do it. When the request
    gets no response whatever comes (`is_answered` is False), the answers to later ones don't wait for it. When the
    client is gone and the wait was for its sake alone (`ends_with_client`), the outcome is cancelled. With
    `needs_request` False the handler has cleared what was large in the request: its memory is free for others.
    """

    __slots__ = ("build", "ends_with_client", "is_answered", "needs_request", "outcome")

    def __init__(
        self,
        outcome: asyncio.Future[Any],
        build: Callable[[Any], Any],
        *,
        is_answered: bool = True,
        ends_with_client: bool = False,
        needs_request: bool = True,
    ) -> None:
        self.outcome = outcome
        self.build = build
        self.is_answered = is_answered
        self.ends_with_client = ends_with_client
        self.needs_request = needs_request


class NoAnswer:
    """What a handler returns for a request that gets no response; with `close` the connection ends."""

    __slots__ = ("close",)

    def __init__(self, close: str | None = None) -> None:
        self.close = close


class Held:
    """A response that holds memory; `release` is called once it has been written, or never will be."""

    __slots__ = ("release", "response")

    def __init__(self, response: Any, release: Callable[[], None]) -> None:
        self.response = response
        self.release = release
