"""What the measuring half of the doctor hands to its judging half. None stands for what could not be found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from warp.cli.doctor.latency import Latency
from warp.config_values import Address

SMALL_BYTES: Final = 1024
LARGE_BYTES: Final = 4 * 2**20
"""The sizes of the objects that an object store is measured with."""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """`ahead_s`: how far this machine's clock is ahead of the object store's; `uncertainty_s` either way."""

    ahead_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one kind of request; `failure` is the first error, of `failures`."""

    latency: Latency | None
    failures: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """An object store that was opened; or `refusal`, why it can't be."""

    url: str
    """Without secrets."""
    is_directory: bool
    refusal: str = ""
    conditional_create: bool = False
    checks_content: bool = False
    check_refusal: str = ""
    """Why the light check fails that readiness is told by."""
    put_small: Timing | None = None
    put_large: Timing | None = None
    get_small: Timing | None = None
    get_large: Timing | None = None
    left_behind: str = ""
    """Why probe objects could not be removed."""


@dataclass(frozen=True, slots=True)
class PlaceFacts:
    """A directory on this machine and the disk that it is on.

    `measured_at` is the directory itself, or the nearest one above it that exists. `refusal`: why nothing can be
    written there.
    """

    directory: str
    measured_at: str
    is_there: bool
    file_system: str | None = None
    free_bytes: int | None = None
    free_files: int | None = None
    refusal: str = ""
    fsync: Latency | None = None


class HolderState(StrEnum):
    """Whether an agent holds a data directory."""

    NOBODY = "nobody"
    HELD = "held"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a data directory, as its lock file says."""

    state: HolderState
    pid: int | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The file of a SQLite database, as it lies there; nothing was opened by SQLite."""

    path: str
    is_there: bool
    refusal: str = ""
    is_sqlite: bool = False
    is_wal: bool = False
    size_bytes: int = 0
    wal_bytes: int = 0


class RegistrationState(StrEnum):
    """What the registration under an agent's name was seen to do."""

    NONE = "none"
    GONE = "gone"
    """Its agent has said goodbye."""
    STILL = "still"
    """Its agent has not, and does not move it any more."""
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class Registration:
    """Who has an agent's name in the metadata that agents share."""

    name: str
    state: RegistrationState
    broker_id: int = -1


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """A PostgreSQL database as an agent finds it; or `refusal`, why it can't start on it.

    `failure`: what went wrong after it was opened. `hears` is None behind a pooler that was named, where nobody asks.
    """

    where: str
    refusal: str = ""
    failure: str = ""
    version: str = ""
    schema: str = ""
    """Empty when there is none yet."""
    is_migrated: bool = False
    """An agent has been there before."""
    migrations: int = 0
    """Those that an agent would run at its start."""
    may_create: bool = True
    synchronous_commit: str = "on"
    standbys: str = ""
    """`synchronous_standby_names`."""
    fsync: str = "on"
    connections_max: int = 0
    """That the server, the database and the role leave to agents."""
    connections_used: int = 0
    """By everybody but the doctor."""
    encryption: str = ""
    """The version of TLS; empty without."""
    is_verified: bool = False
    """The URL asks for the server's certificate, and its name."""
    is_local: bool = False
    """The connection does not leave the machine."""
    round_trip: Timing | None = None
    commit: Timing | None = None
    hears: bool | None = None
    clock: ClockFacts | None = None
    cluster_id: str | None = None
    registration: Registration | None = None


@dataclass(frozen=True, slots=True)
class MarkerFacts:
    """Whose an object store says it is: the cluster id in its marker object, None where there is none."""

    cluster_id: str | None
    refusal: str = ""
    """Why that could not be read."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One broker as Metadata names it."""

    broker_id: int
    address: Address


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What answered at an address: a Kafka broker, or `refusal`.

    `is_open`: somebody accepted the connection, whatever came of it. `resolved`: the addresses behind the host name.
    `wants_authentication`: it tells nothing of its cluster to who has no name; so nothing of that is known here.
    """

    address: Address
    resolved: tuple[str, ...] = ()
    is_open: bool = False
    refusal: str = ""
    cluster_id: str | None = None
    brokers: tuple[BrokerAddress, ...] = ()
    round_trip: Latency | None = None
    is_tls: bool = False
    wants_authentication: bool = False

    @property
    def is_broker(self) -> bool:
        """True when it speaks Kafka."""
        return not self.refusal


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What /v1/status and /v1/ready say; `refusal` when the answer is not that of an agent."""

    refusal: str = ""
    version: str = ""
    cluster_id: str = ""
    broker_id: int = -1
    reasons_not_ready: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobsFacts:
    """What an agent that runs tells of its cluster's jobs; `refusal` when it does not tell."""

    refusal: str = ""
    has_jobs: bool = False
    """Some agent that lives has the role."""
    merge_debt: float = 0.0
    """What waits to be merged, divided by what may wait; the least of a few looks."""
    quarantined_extents: int = 0


class BindState(StrEnum):
    """Whether an address could be listened on."""

    FREE = "free"
    TAKEN = "taken"
    PRIVILEGED = "privileged"
    NOT_HERE = "not here"
    UNKNOWN_HOST = "unknown host"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class PortFacts:
    """One address that the agent listens on; who has it, when it is taken."""

    address: Address
    state: BindState
    reason: str = ""
    broker: BrokerFacts | None = None
    status: AgentStatus | None = None


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """One address that clients are told, as they see it, and every broker that it names.

    `listen` is None when a cluster is looked at from outside. `is_serving`: the listener behind it has somebody.
    """

    told: Address
    listen: Address | None
    is_serving: bool
    expected_cluster_id: str | None
    answer: BrokerFacts
    others: tuple[BrokerFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The certificate of the agent, and the file of its key; or `refusal`, why an agent can't use them.

    `names` and `addresses` are those that it is for. Times are seconds since 1970.
    """

    path: str
    key_path: str
    refusal: str = ""
    key_mode: int = 0
    begins_s: float = 0.0
    ends_s: float = 0.0
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the machine, the container and the user's limits allow. Sizes in bytes."""

    open_files_soft: int | None
    """None: unlimited."""
    open_files_hard: int | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    memory_limit_bytes: int | None
    """Of the container (cgroup); None: unlimited."""
    memory_limit_used_bytes: int | None
    agent_memory_bytes: int
    """What the agent that runs here already holds; 0 when none does."""
    processors: int
    """Those that this process may use."""
    processor_quota: float | None
    """Of the container, in processors; None: unlimited."""
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    listen_queue_max: int | None
    checksum: str
    checksums: tuple[str, ...]
    python: str
    uvloop: str
    sqlite: tuple[int, ...]
    warp: str
    client_library: str
