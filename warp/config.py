"""The agent's options: one table that drives flags, environment, file, `warp config show` and the documentation.

An option's value is the first that is found of: its flag, its `WARP_…` variable, its key in the TOML file, its default.
A name that the table does not know is refused with the nearest one that it does: a setting that is silently ignored is
worse than an agent that does not start.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from warp import config_values as kinds
from warp.config_values import Address, Kind
from warp.errors import UsageError

ENVIRONMENT_PREFIX: Final = "WARP_"
CONFIG_FILE_VARIABLE: Final = "WARP_CONFIG"
FOREIGN_VARIABLES: Final = ("WARP_DEBUG_BUILD", "WARP_TEST_")
"""Variables of the build, and the prefix of those of the tests: the agent leaves them alone."""

CONFIG_FILE_BYTES_MAX: Final = 1024 * 1024

GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Every setting of one agent, read and checked. The table `OPTIONS` says what each means."""

    listen: tuple[Address, ...]
    advertise: tuple[Address, ...]
    http: Address | None
    data_dir: Path
    object_store: str
    metadata: str
    zone: str | None
    cluster_id: str | None
    flush_interval_ms: int
    flush_bytes_max: int
    flush_uploads_max: int
    request_bytes_max: int
    request_memory_bytes_max: int
    fetch_memory_bytes_max: int
    cache_bytes_max: int
    connections_max: int
    connection_idle_ms: int
    auto_create_topics: bool
    num_partitions: int
    message_bytes_max: int
    group_session_min_ms: int
    group_session_max_ms: int
    group_rebalance_delay_ms: int
    group_members_max: int
    group_lag_series_max: int
    offsets_retention_ms: int
    free_space_reserve_bytes: int
    log_level: str
    log_format: str
    shutdown_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name on the command line, its field in AgentConfig, and what values it takes.

    `default` is text, as a user would write it; None means unset, which `unset_help` explains. `minimum` and `maximum`
    are in the unit of the field and inclusive. A `repeated` option is a tuple, and a comma-separated list in its
    environment variable.
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
        "Where the facts about the data live: sqlite:///FILE, or mem:// together with --object-store mem://.",
        unset_help="metadata.sqlite in the data directory",
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

_BY_NAME: Final = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration, and where each of its values came from: option name to words such as `WARP_LISTEN`."""

    config: AgentConfig
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(option, shown value, source) of every option, in the order of the table."""
        return [
            (option.name, option.show(getattr(self.config, option.field)), self.sources[option.name])
            for option in OPTIONS
        ]


def resolve(
    flags: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> Resolved:
    """Put a configuration together out of all its sources.

    `flags` maps an option's name to the texts given on the command line. `config_file` is that of `--config`; without
    one, `WARP_CONFIG` of the environment counts. Raises UsageError, one line that names the source of the mistake.
    """
    refuse_unknown_variables(environment)
    if config_file is None and environment.get(CONFIG_FILE_VARIABLE):
        config_file = Path(environment[CONFIG_FILE_VARIABLE])
    from_file = _read_file(config_file) if config_file is not None else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        texts, sources[option.name] = _first_found(option, flags, environment, from_file, config_file)
        values[option.field] = _parse_all(option, texts, sources[option.name])
    _fill_in_stores(values)
    config = AgentConfig(**values)
    _check_together(config)
    return Resolved(config, sources)


def config_of(**texts: str | Sequence[str]) -> AgentConfig:
    """A configuration from the defaults and the given texts, by field name: `config_of(flush_bytes_max="1MiB")`."""
    by_field = {option.field: option.name for option in OPTIONS}
    flags = {by_field[field]: [text] if isinstance(text, str) else text for field, text in texts.items()}
    return resolve(flags, {}).config


def refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raises UsageError for a `WARP_…` variable that no option has."""
    known = {option.variable for option in OPTIONS} | {CONFIG_FILE_VARIABLE}
    for name in sorted(environment):
        if (
            name.startswith(ENVIRONMENT_PREFIX)
            and name not in known
            and not name.startswith(FOREIGN_VARIABLES)
        ):
            raise UsageError(f"unknown environment variable {name}{did_you_mean(name, known)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the known name that is nearest to `name`; empty when none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _first_found(
    option: Option,
    flags: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    from_file: Mapping[str, list[str]],
    config_file: Path | None,
) -> tuple[Sequence[str], str]:
    """The texts of an option, and the words for where they stand."""
    if option.name in flags:
        return flags[option.name], option.flag
    if option.variable in environment:
        text = environment[option.variable]
        return text.split(",") if option.repeated else [text], option.variable
    if option.name in from_file:
        return from_file[option.name], f"{config_file}"
    return [] if option.default is None else [option.default], "default"


def _parse_all(option: Option, texts: Sequence[str], source: str) -> Any:
    where = source if source in (option.flag, option.variable) else f"{source}: {option.name}"
    try:
        values = tuple(option.parse(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if option.repeated:
        return values
    if len(values) > 1:
        raise UsageError(f"{where} was given {len(values)} times; it takes one value")
    return values[0] if values else None


def _read_file(path: Path) -> dict[str, list[str]]:
    """The texts of a TOML file, by option name. Raises UsageError that names the file."""
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_FILE_BYTES_MAX + 1)
        if len(content) > CONFIG_FILE_BYTES_MAX:
            raise UsageError(f"{path} is larger than {CONFIG_FILE_BYTES_MAX} bytes")
        table = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for name in table:
        if name not in _BY_NAME:
            raise UsageError(f"{path}: unknown key {name}{did_you_mean(name, _BY_NAME)}")
    return {name: _texts(path, _BY_NAME[name], value) for name, value in table.items()}


def _texts(path: Path, option: Option, value: Any) -> list[str]:
    if isinstance(value, list) and option.repeated:
        return [text for element in value for text in _texts(path, option, element)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (str, int, float)):
        return [str(value)]
    raise UsageError(f"{path}: {option.name} is {type(value).__name__}, not text, a number or true or false")


def _fill_in_stores(values: dict[str, Any]) -> None:
    """Stores that are not named live in the data directory; in memory, when the other one does."""
    directory = Path(values["data_dir"]).absolute()
    stores = (values["object_store"], values["metadata"])
    in_memory = any(is_in_memory(url) for url in stores if url)
    if values["object_store"] is None:
        values["object_store"] = "mem://" if in_memory else (directory / "objects").as_uri()
    if values["metadata"] is None:
        file = directory / "metadata.sqlite"
        values["metadata"] = "mem://" if in_memory else file.as_uri().replace("file:", "sqlite:", 1)


def is_in_memory(url: str) -> bool:
    """True for a store that is gone with its process."""
    return url.partition(":")[0].lower() == "mem"


def _check_together(config: AgentConfig) -> None:
    """Checks that need more than one value. Raises UsageError."""
    listeners = [str(address) for address in config.listen]
    if not listeners:
        raise UsageError("--listen: at least one address is needed")
    if config.advertise and len(config.advertise) != len(listeners):
        raise UsageError(
            f"--advertise was given {len(config.advertise)} times and --listen {len(listeners)} times; "
            "each listener needs its own, in the same order"
        )
    for address in config.listen:
        if address.is_wildcard and not config.advertise:
            raise UsageError(
                f"--listen {address} takes connections on every interface, but clients have to be told one address "
                "to connect to; add --advertise HOST:PORT with a name that they can reach"
            )
    fixed = [*(address for address in config.listen if address.port), *filter(None, [config.http])]
    for index, address in enumerate(fixed):
        if address.port and address in fixed[:index]:
            raise UsageError(f"two listeners share the address {address}")
    if is_in_memory(config.object_store) != is_in_memory(config.metadata):
        raise UsageError(
            "--object-store and --metadata have to be both in memory or both lasting: "
            "after a restart one would speak of what the other has lost"
        )
    if config.group_session_min_ms > config.group_session_max_ms:
        show = kinds.DURATION.show
        raise UsageError(
            f"--group-session-min ({show(config.group_session_min_ms)}) is above "
            f"--group-session-max ({show(config.group_session_max_ms)})"
        )
    _check_order(
        "--message-bytes-max", config.message_bytes_max, "--request-bytes-max", config.request_bytes_max
    )
    _check_order(
        "--request-bytes-max", config.request_bytes_max, "--request-memory", config.request_memory_bytes_max
    )
    _check_order("--flush-bytes", config.flush_bytes_max, "--request-memory", config.request_memory_bytes_max)


def _check_order(low_flag: str, low: int, high_flag: str, high: int) -> None:
    if low > high:
        show = kinds.SIZE.show
        raise UsageError(f"{low_flag} ({show(low)}) is above {high_flag} ({show(high)})")
