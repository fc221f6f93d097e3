"""The table of the agent's options: names, kinds of value, defaults, limits, and the words that explain each.

One table drives flags, environment, file, `warp config show` and the documentation; `warp.config` reads the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from warp import config_values as kinds
from warp.config_values import Kind

ENVIRONMENT_PREFIX: Final = "WARP_"
ROLES: Final = ("produce", "fetch", "jobs")
"""What an agent may do for its cluster, in the order in which it is shown."""

GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name on the command line, its field in AgentConfig, and what values it takes.

    `default` is text, as a user would write it; None means unset, which `unset_help` explains. `minimum` and `maximum`
    are in the unit of the field and inclusive. A `repeated` option is a tuple; each of its texts may be a list with
    commas.
    """

    name: str
    field: str
    kind: Kind
    default: str | None
    help: str
    minimum: int | None = None
    maximum: int | None = None
    repeated: bool = False
    unset_help: str = "none"

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def default_text(self) -> str:
        return self.unset_help if self.default is None else self.default

    def parse(self, text: str) -> Any:
        """The value of `text`. Raises ValueError when it is not one, or out of range."""
        value = self.kind.parse(text)
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{text!r} is below the minimum of {self.kind.show(self.minimum)}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"{text!r} is above the maximum of {self.kind.show(self.maximum)}")
        return value

    def show(self, value: Any) -> str:
        """The value as `warp config show` prints it: reads back as itself, secrets masked."""
        if value is None and self.kind is not kinds.HTTP_ADDRESS:
            return ""
        return ", ".join(map(self.kind.show, value)) if self.repeated else self.kind.show(value)


OPTIONS: Final = (
    Option(
        "listen", "listen", kinds.ADDRESS, "127.0.0.1:9092",
        "Address to serve the Kafka protocol on; port 0 takes any free port. May be repeated.",
        repeated=True,
    ),
    Option(
        "advertise", "advertise", kinds.ADVERTISED_ADDRESS, None,
        "Address that clients are told to connect to; without a port, the port of the listener. One for each "
        "--listen, in the same order; needed when --listen is a wildcard such as 0.0.0.0.",
        repeated=True, unset_help="the --listen addresses",
    ),
    Option(
        "http", "http", kinds.HTTP_ADDRESS, "127.0.0.1:8080",
        "Address for health checks and metrics over HTTP, or off.",
    ),
    Option(
        "data-dir", "data_dir", kinds.PATH, "warp-data",
        "Directory for what the agent keeps on this machine. It belongs to one agent at a time.",
    ),
    Option(
        "object-store", "object_store", kinds.URL, None,
        "Where record data lives: file:///DIR, s3://BUCKET/PREFIX?region=…&endpoint=…, or mem:// for nothing that "
        "should outlive the process.",
        unset_help="objects/ in the data directory",
    ),
    Option(
        "metadata", "metadata", kinds.URL, None,
        "Where the facts about the data live: sqlite:///FILE for one agent, postgresql://USER@HOST/DATABASE for the "
        "agents of a cluster, or mem:// together with --object-store mem://.",
        unset_help="metadata.sqlite in the data directory",
    ),
    Option(
        "metadata-connections-max", "metadata_connections_max", kinds.COUNT, "10",
        "Connections to a PostgreSQL metadata store open at once, besides those for hints and signs of life.",
        minimum=2, maximum=1000,
    ),
    Option(
        "metadata-timeout", "metadata_timeout_ms", kinds.DURATION, "10s",
        "Time for connecting to a PostgreSQL metadata store, and for one statement; then it counts as unavailable.",
        minimum=1_000, maximum=300_000,
    ),
    Option(
        "zone", "zone", kinds.NAME, None,
        "Availability zone of this agent; clients see it as the broker's rack.",
    ),
    Option(
        "cluster-id", "cluster_id", kinds.NAME, None,
        "Id that the cluster gets when it is new; refused later when the cluster has another one.",
        unset_help="a new random id",
    ),
    Option(
        "roles", "roles", kinds.one_of(*ROLES), ",".join(ROLES),
        "What this agent does in a cluster: produce and fetch, to be named to clients for writing and for reading; "
        "jobs, to run background work. May be repeated.",
        repeated=True,
    ),
    Option(
        "agent-group", "agent_group", kinds.NAME, None,
        "Group of agents that this one belongs to; its clients are sent to agents of the same group alone.",
    ),
    Option(
        "advertise-http", "advertise_http", kinds.ADVERTISED_ADDRESS, None,
        "Address at which the other agents of a cluster reach --http, to share what they have read; without a port, "
        "the port of --http.",
        unset_help="the host of the first --advertise or --listen, unless --http can't be reached there",
    ),
    Option(
        "agent-timeout", "agent_timeout_ms", kinds.DURATION, "2s",
        "How long an agent of a cluster may be silent until the others go on without it. All agents of a cluster "
        "should have the same.",
        minimum=500, maximum=60_000,
    ),
    Option(
        "flush-interval", "flush_interval_ms", kinds.DURATION, "250ms",
        "Average time between writes to an object store whose requests cost money, while the agent is not busy.",
        minimum=1, maximum=60_000,
    ),
    Option(
        "flush-bytes", "flush_bytes_max", kinds.SIZE, "8MiB",
        "Bytes waiting that start a write before --flush-interval has passed.",
        minimum=64 * 1024, maximum=GIB,
    ),
    Option(
        "flush-uploads-max", "flush_uploads_max", kinds.COUNT, "8",
        "Segments that are uploaded at once.",
        minimum=1, maximum=64,
    ),
    Option(
        "request-bytes-max", "request_bytes_max", kinds.SIZE, "100MiB",
        "Largest request that is read; a connection that announces a larger one is closed.",
        minimum=64 * 1024, maximum=2**31 - 1,
    ),
    Option(
        "request-memory", "request_memory_bytes_max", kinds.SIZE, "256MiB",
        "Memory for all requests and for records that wait to be written; connections wait when it is used up.",
        minimum=1024 * 1024, maximum=1024 * GIB,
    ),
    Option(
        "fetch-memory", "fetch_memory_bytes_max", kinds.SIZE, "128MiB",
        "Memory for answers to consumers that are being put together or sent.",
        minimum=16 * 1024 * 1024, maximum=1024 * GIB,
    ),
    Option(
        "cache-bytes", "cache_bytes_max", kinds.SIZE, "128MiB",
        "Memory for record data that consumers read.",
        minimum=16 * 1024 * 1024, maximum=1024 * GIB,
    ),
    Option(
        "connections-max", "connections_max", kinds.COUNT, "10000",
        "Kafka connections open at once, lowered to what the limit on file descriptors allows.",
        minimum=1, maximum=1_000_000,
    ),
    Option(
        "connection-idle", "connection_idle_ms", kinds.DURATION, "10m",
        "Time without a request after which a connection is closed.",
        minimum=1_000, maximum=7 * 86_400_000,
    ),
    Option(
        "auto-create-topics", "auto_create_topics", kinds.BOOLEAN, "true",
        "Whether a topic that a client asks for comes into being when it does not exist.",
    ),
    Option(
        "num-partitions", "num_partitions", kinds.COUNT, "1",
        "Partitions of a new topic whose creator does not say how many.",
        minimum=1, maximum=10_000,
    ),
    Option(
        "message-bytes-max", "message_bytes_max", kinds.SIZE, "1048588B",
        "Largest record batch that is accepted, for topics that do not set max.message.bytes.",
        minimum=1024, maximum=2**31 - 1,
    ),
    Option(
        "group-session-min", "group_session_min_ms", kinds.DURATION, "6s",
        "Shortest session timeout that a member of a consumer group may ask for.",
        minimum=1, maximum=3_600_000,
    ),
    Option(
        "group-session-max", "group_session_max_ms", kinds.DURATION, "30m",
        "Longest session timeout that a member of a consumer group may ask for.",
        minimum=1, maximum=86_400_000,
    ),
    Option(
        "group-rebalance-delay", "group_rebalance_delay_ms", kinds.DURATION, "3s",
        "How long the first member of an empty consumer group waits for others before it is given its partitions.",
        minimum=0, maximum=300_000,
    ),
    Option(
        "group-members-max", "group_members_max", kinds.COUNT, "10000",
        "Members of one consumer group.",
        minimum=1, maximum=100_000,
    ),
    Option(
        "group-lag-series", "group_lag_series_max", kinds.COUNT, "1000",
        "Lags of consumer groups, one for each partition of each group, that /metrics shows; 0 for none.",
        minimum=0, maximum=1_000_000,
    ),
    Option(
        "offsets-retention", "offsets_retention_ms", kinds.DURATION, "7d",
        "How long committed offsets are kept after their consumer group has become empty.",
        minimum=60_000, maximum=3650 * 86_400_000,
    ),
    Option(
        "free-space-reserve", "free_space_reserve_bytes", kinds.SIZE, "256MiB",
        "Free space of a file:// object store's disk below which records are refused, so that deleting still works.",
        maximum=1024 * GIB,
    ),
    Option(
        "log-level", "log_level", kinds.one_of("debug", "info", "warning", "error"), "info",
        "Least level of the lines that are logged.",
    ),
    Option(
        "log-format", "log_format", kinds.one_of("auto", "human", "json"), "auto",
        "How log lines look; auto means human on a terminal and json elsewhere.",
    ),
    Option(
        "shutdown-timeout", "shutdown_timeout_ms", kinds.DURATION, "30s",
        "Time for finishing what is in progress after SIGTERM; then the agent exits, whatever still hangs.",
        minimum=1_000, maximum=3_600_000,
    ),
)  # fmt: skip
