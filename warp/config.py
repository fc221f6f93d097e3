"""An agent's configuration, put together out of its sources and checked.

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
from warp.config_options import ENVIRONMENT_PREFIX, OPTIONS, ROLES, Option
from warp.config_values import Address, ListenAddress
from warp.errors import UsageError

CONFIG_FILE_VARIABLE: Final = "WARP_CONFIG"
FOREIGN_VARIABLES: Final = ("WARP_DEBUG_BUILD", "WARP_TEST_")
"""Variables of the build, and the prefix of those of the tests: the agent leaves them alone."""

CLIENT_CONFIG_VARIABLE: Final = "WARP_CLIENT_CONFIG"
HTTP_USER_VARIABLE: Final = "WARP_HTTP_USER"
HTTP_PASSWORD_FILE_VARIABLE: Final = "WARP_HTTP_PASSWORD_FILE"
HTTP_CA_VARIABLE: Final = "WARP_HTTP_CA"
COMMAND_VARIABLES: Final = (
    CLIENT_CONFIG_VARIABLE, HTTP_USER_VARIABLE, HTTP_PASSWORD_FILE_VARIABLE, HTTP_CA_VARIABLE,
)  # fmt: skip
"""What commands that talk to an agent read; to the agent itself they say nothing."""

CONFIG_FILE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Every setting of one agent, read and checked. The table in `warp.config_options` says what each means."""

    listen: tuple[ListenAddress, ...]
    advertise: tuple[Address, ...]
    http: Address | None
    data_dir: Path
    object_store: str
    metadata: str
    metadata_connections_max: int
    metadata_timeout_ms: int
    zone: str | None
    cluster_id: str | None
    roles: tuple[str, ...]
    agent_group: str | None
    advertise_http: Address | None
    agent_timeout_ms: int
    flush_interval_ms: int
    flush_bytes_max: int
    flush_uploads_max: int
    request_bytes_max: int
    request_memory_bytes_max: int
    fetch_memory_bytes_max: int
    cache_bytes_max: int
    connections_max: int
    connections_per_address_max: int | None
    connection_rate_max: int | None
    connection_idle_ms: int
    tls_certificate: Path | None
    tls_key: Path | None
    tls_key_password_file: Path | None
    tls_client_ca: Path | None
    tls_client_auth: str
    tls_principal_rules: str
    tls_version_min: str
    sasl_mechanisms: tuple[str, ...]
    sasl_session_max_ms: int
    oauth_jwks: str | None
    oauth_issuer: str | None
    oauth_audience: str | None
    oauth_principal_claim: str
    authorization: str
    super_users: tuple[str, ...]
    allow_if_no_acl: bool
    http_authentication: str
    http_tls: bool
    auto_create_topics: bool
    num_partitions: int
    message_bytes_max: int
    group_session_min_ms: int
    group_session_max_ms: int
    group_rebalance_delay_ms: int
    group_members_max: int
    group_lag_series_max: int
    offsets_retention_ms: int
    jobs_memory_bytes_max: int
    jobs_bandwidth_bytes_per_s: int | None
    merge_interval_ms: int
    merge_backlog_bytes_max: int
    compaction_interval_ms: int
    retention_check_interval_ms: int
    delete_grace_ms: int
    restore_window_ms: int
    orphan_age_ms: int
    orphan_interval_ms: int
    producer_expiry_ms: int
    free_space_reserve_bytes: int
    log_level: str
    log_format: str
    shutdown_timeout_ms: int


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
    values["roles"] = tuple(role for role in ROLES if role in values["roles"])
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
    known = {option.variable for option in OPTIONS} | {CONFIG_FILE_VARIABLE, *COMMAND_VARIABLES}
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
        return [environment[option.variable]], option.variable
    if option.name in from_file:
        return from_file[option.name], f"{config_file}"
    return [] if option.default is None else [option.default], "default"


def _parse_all(option: Option, texts: Sequence[str], source: str) -> Any:
    where = source if source in (option.flag, option.variable) else f"{source}: {option.name}"
    if option.repeated:
        texts = [piece for text in texts for piece in text.split(",")]
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
    """Stores that are not named live in the data directory; in memory, when the other one does.

    Raises UsageError for metadata of many agents without an object store that they share.
    """
    directory = Path(values["data_dir"]).absolute()
    stores = (values["object_store"], values["metadata"])
    if values["object_store"] is None and values["metadata"] is not None and is_shared(values["metadata"]):
        raise UsageError(
            "--metadata names a database that agents share; name the object store that they share as well, as in "
            "--object-store s3://BUCKET/PREFIX"
        )
    in_memory = any(is_in_memory(url) for url in stores if url)
    if values["object_store"] is None:
        values["object_store"] = "mem://" if in_memory else (directory / "objects").as_uri()
    if values["metadata"] is None:
        file = directory / "metadata.sqlite"
        values["metadata"] = "mem://" if in_memory else file.as_uri().replace("file:", "sqlite:", 1)


def is_in_memory(url: str) -> bool:
    """True for a store that is gone with its process."""
    return url.partition(":")[0].lower() == "mem"


def is_shared(metadata_url: str) -> bool:
    """True for a metadata store on which several agents can work side by side, as a cluster."""
    return metadata_url.partition(":")[0].lower() in ("postgresql", "postgres")


def _check_together(config: AgentConfig) -> None:
    """Checks that need more than one value. Raises UsageError."""
    _check_addresses(config)
    _check_security(config)
    if not config.roles:
        raise UsageError(f"--roles: at least one of {', '.join(ROLES)} is needed")
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


def _check_addresses(config: AgentConfig) -> None:
    """Raises UsageError for listeners that can't be, or that nobody could reach."""
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
    fixed = [
        str(address) for address in (*config.listen, config.http) if address is not None and address.port
    ]
    for index, text in enumerate(fixed):
        if text in fixed[:index]:
            raise UsageError(f"two listeners share the address {text}")
    if config.advertise_http is not None and config.http is None:
        raise UsageError("--advertise-http names an address of what --http off turns off")


def _check_security(config: AgentConfig) -> None:
    """Raises UsageError for listeners that lack what their protocol needs, and for what would be without effect."""
    encrypted = next((address for address in config.listen if address.has_tls), None)
    authenticated = next((address for address in config.listen if address.has_sasl), None)
    if config.tls_certificate is None:
        if encrypted is not None:
            raise UsageError(
                f"--listen {encrypted.protocol}://{encrypted} needs a certificate: add --tls-certificate FILE and, "
                "if the key is in a file of its own, --tls-key FILE"
            )
        if config.http_tls:
            raise UsageError(
                "--http-tls true needs a certificate: add --tls-certificate FILE and --tls-key FILE"
            )
        for flag, value in (
            ("--tls-key", config.tls_key),
            ("--tls-key-password-file", config.tls_key_password_file),
            ("--tls-client-ca", config.tls_client_ca),
        ):
            if value is not None:
                raise UsageError(f"{flag} is of no use without --tls-certificate")
    if config.tls_client_auth != "none" and config.tls_client_ca is None:
        raise UsageError(
            f"--tls-client-auth {config.tls_client_auth} needs to know whose certificates to accept: add "
            "--tls-client-ca FILE"
        )
    if authenticated is None:
        return
    if not config.sasl_mechanisms:
        raise UsageError(
            f"--listen {authenticated.protocol}://{authenticated} needs --sasl-mechanisms, as in SCRAM-SHA-256"
        )
    if "OAUTHBEARER" in config.sasl_mechanisms and config.oauth_jwks is None:
        raise UsageError(
            "OAUTHBEARER in --sasl-mechanisms needs the keys that sign tokens: add --oauth-jwks URL or FILE"
        )


def _check_order(low_flag: str, low: int, high_flag: str, high: int) -> None:
    if low > high:
        show = kinds.SIZE.show
        raise UsageError(f"{low_flag} ({show(low)}) is above {high_flag} ({show(high)})")
