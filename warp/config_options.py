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

SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

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
        "listen", "listen", kinds.LISTEN_ADDRESS, "127.0.0.1:9092",
        "Address to serve the Kafka protocol on; port 0 takes any free port. The protocol is PLAINTEXT (the default), "
        "SSL, SASL_PLAINTEXT or SASL_SSL: with TLS, with authentication by SASL, or both. May be repeated; the agents "
        "of a cluster need the same protocols in the same order.",
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
        "connections-per-address-max", "connections_per_address_max", kinds.COUNT, None,
        "Kafka connections of one client address open at once.",
        minimum=1, maximum=1_000_000, unset_help="no limit but --connections-max",
    ),
    Option(
        "connection-rate-max", "connection_rate_max", kinds.COUNT, None,
        "New Kafka connections per second over all listeners; those above it wait.",
        minimum=1, maximum=1_000_000, unset_help="no limit",
    ),
    Option(
        "connection-idle", "connection_idle_ms", kinds.DURATION, "10m",
        "Time without a request after which a connection is closed.",
        minimum=1_000, maximum=7 * 86_400_000,
    ),
    Option(
        "tls-certificate", "tls_certificate", kinds.FILE, None,
        "PEM file with the certificate of this agent and those that signed it, for listeners with TLS. It is read "
        "again when it changes.",
    ),
    Option(
        "tls-key", "tls_key", kinds.FILE, None,
        "PEM file with the private key of --tls-certificate.",
        unset_help="in the file of --tls-certificate",
    ),
    Option(
        "tls-key-password-file", "tls_key_password_file", kinds.FILE, None,
        "File with the password that --tls-key is encrypted with.",
        unset_help="the key is not encrypted",
    ),
    Option(
        "tls-client-ca", "tls_client_ca", kinds.FILE, None,
        "PEM file with the authorities whose certificates clients may present.",
    ),
    Option(
        "tls-client-auth", "tls_client_auth", kinds.one_of("none", "requested", "required"), "none",
        "Whether clients of listeners with TLS have to present a certificate; on SSL listeners it says who they are.",
    ),
    Option(
        "tls-principal-rules", "tls_principal_rules", kinds.TEXT, "DEFAULT",
        "How the subject of a client's certificate becomes the name of its principal: rules as in Kafka's "
        "ssl.principal.mapping.rules, tried in order, separated by commas: RULE:PATTERN/REPLACEMENT/, then L or U for "
        "lower or upper case, or DEFAULT.",
    ),
    Option(
        "tls-version-min", "tls_version_min", kinds.one_of("1.2", "1.3"), "1.2",
        "Oldest version of TLS that is spoken.",
    ),
    Option(
        "sasl-mechanisms", "sasl_mechanisms", kinds.one_of_exactly(*SASL_MECHANISMS),
        "SCRAM-SHA-256,SCRAM-SHA-512",
        "Mechanisms by which clients of SASL listeners may authenticate. May be repeated.",
        repeated=True,
    ),
    Option(
        "sasl-session-max", "sasl_session_max_ms", kinds.DURATION, "0",
        "Time after which clients have to authenticate again on the same connection (KIP-368); 0 is never.",
        maximum=365 * 86_400_000,
    ),
    Option(
        "oauth-jwks", "oauth_jwks", kinds.TEXT, None,
        "Where the keys are that sign tokens for OAUTHBEARER: an https:// URL, or a file, of a JSON Web Key Set.",
    ),
    Option(
        "oauth-issuer", "oauth_issuer", kinds.TEXT, None,
        "Issuer (iss) that tokens have to name.",
        unset_help="any",
    ),
    Option(
        "oauth-audience", "oauth_audience", kinds.TEXT, None,
        "Audience (aud) that tokens have to name.",
        unset_help="any",
    ),
    Option(
        "oauth-principal-claim", "oauth_principal_claim", kinds.TEXT, "sub",
        "Claim of a token that holds the name of the principal.",
    ),
    Option(
        "authorization", "authorization", kinds.one_of("off", "log", "enforce"), "off",
        "Whether ACLs decide what clients may do: off, enforce, or log, which allows everything and logs what would "
        "be refused.",
    ),
    Option(
        "super-users", "super_users", kinds.PRINCIPALS, "",
        "Principals that may do everything, separated by semicolons, as in User:admin;User:CN=operator.",
    ),
    Option(
        "allow-if-no-acl", "allow_if_no_acl", kinds.BOOLEAN, "false",
        "Whether everybody may do everything to a resource that no ACL speaks of.",
    ),
    Option(
        "http-authentication", "http_authentication", kinds.one_of("off", "required"), "off",
        "Whether HTTP requests have to authenticate, by name and password or by a client certificate; health checks "
        "need not.",
    ),
    Option(
        "http-tls", "http_tls", kinds.BOOLEAN, "false",
        "Whether HTTP is served over TLS, with --tls-certificate.",
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
        "jobs-memory", "jobs_memory_bytes_max", kinds.SIZE, "128MiB",
        "Memory for the background jobs that run at this agent: merging, compaction by key and the like.",
        minimum=64 * 1024 * 1024, maximum=1024 * GIB,
    ),
    Option(
        "jobs-bandwidth", "jobs_bandwidth_bytes_per_s", kinds.SIZE, None,
        "Bytes per second that the jobs at this agent read from and write to the object store, together.",
        minimum=64 * 1024, maximum=1024 * GIB, unset_help="no limit",
    ),
    Option(
        "merge-interval", "merge_interval_ms", kinds.DURATION, "1s",
        "Time between two looks for segments that are to be merged into larger ones.",
        minimum=50, maximum=3_600_000,
    ),
    Option(
        "merge-backlog-max", "merge_backlog_bytes_max", kinds.SIZE, "4GiB",
        "Data that waits to be merged above which producers are held back, more and more, until merging keeps up. "
        "For each 2 MiB of it, one small segment may wait.",
        minimum=256 * 1024 * 1024, maximum=1024 * GIB,
    ),
    Option(
        "compaction-interval", "compaction_interval_ms", kinds.DURATION, "15s",
        "Time between two looks for logs that are to be compacted by key.",
        minimum=50, maximum=86_400_000,
    ),
    Option(
        "retention-check-interval", "retention_check_interval_ms", kinds.DURATION, "5m",
        "Time between two looks for records that have had their time, or are more than their log may hold, and for "
        "what is left of deleted topics.",
        minimum=50, maximum=86_400_000,
    ),
    Option(
        "delete-grace", "delete_grace_ms", kinds.DURATION, "30m",
        "How long an object is kept after nothing refers to it any more, so that no read that is under way misses it. "
        "All agents of a cluster should have the same.",
        minimum=1_000, maximum=365 * 86_400_000,
    ),
    Option(
        "restore-window", "restore_window_ms", kinds.DURATION, "0",
        "How old a backup of the metadata may be that is still to be restored: for so long, objects are kept after "
        "nothing refers to them any more, if that is longer than --delete-grace.",
        maximum=3650 * 86_400_000,
    ),
    Option(
        "orphan-age", "orphan_age_ms", kinds.DURATION, "1h",
        "How old an object has to be that the metadata do not know, until it is taken for one that never will be "
        "known and is deleted.",
        minimum=1_000, maximum=365 * 86_400_000,
    ),
    Option(
        "orphan-interval", "orphan_interval_ms", kinds.DURATION, "1h",
        "Time between two searches of the object store for such objects.",
        minimum=1_000, maximum=365 * 86_400_000,
    ),
    Option(
        "producer-expiry", "producer_expiry_ms", kinds.DURATION, "1d",
        "How long the sequence numbers of an idempotent producer are remembered after its last write to a partition.",
        minimum=1_000, maximum=24 * 86_400_000,
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
