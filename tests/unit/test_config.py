"""Where values come from, what is refused and in which words, and that the documentation lists every option."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from warp.config import AgentConfig, config_of, did_you_mean, is_shared, resolve
from warp.config_options import OPTIONS, ROLES
from warp.config_values import Address, ListenAddress, mask_url, parse_address
from warp.errors import UsageError
from warp.metadata import cluster_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_defaults_serve_on_loopback_with_data_in_the_working_directory() -> None:
    config = resolve({}, {}).config
    assert config.listen == (ListenAddress("127.0.0.1", 9092),)
    assert config.http == Address("127.0.0.1", 8080)
    assert config.data_dir == Path("warp-data")
    assert config.object_store == (Path.cwd() / "warp-data" / "objects").as_uri()
    assert config.metadata == f"sqlite://{Path.cwd()}/warp-data/metadata.sqlite"
    assert (config.flush_interval_ms, config.flush_bytes_max) == (250, 8 * 2**20)


def test_flag_goes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = tmp_path / "warp.toml"
    file.write_text('flush-interval = "1s"\nflush-bytes = "1MiB"\nzone = "a"\n')
    environment = {"WARP_FLUSH_BYTES": "2MiB", "WARP_ZONE": "b"}
    resolved = resolve({"zone": ["c"]}, environment, file)
    assert (resolved.config.flush_interval_ms, resolved.config.flush_bytes_max, resolved.config.zone) == (
        1000,
        2 * 2**20,
        "c",
    )
    assert resolved.sources["flush-interval"] == str(file)
    assert resolved.sources["flush-bytes"] == "WARP_FLUSH_BYTES"
    assert resolved.sources["zone"] == "--zone"
    assert resolved.sources["http"] == "default"


def test_the_file_can_be_named_by_the_environment_and_a_flag_overrides_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f'zone = "{name}"\n')
    environment = {"WARP_CONFIG": str(tmp_path / "a.toml")}
    assert resolve({}, environment).config.zone == "a"
    assert resolve({}, environment, tmp_path / "b.toml").config.zone == "b"


def test_repeated_values_come_from_every_source(tmp_path: Path) -> None:
    expected = (ListenAddress("127.0.0.1", 1), ListenAddress("::1", 2))
    assert resolve({"listen": ["127.0.0.1:1", "[::1]:2"]}, {}).config.listen == expected
    assert resolve({}, {"WARP_LISTEN": "127.0.0.1:1,[::1]:2"}).config.listen == expected
    file = tmp_path / "warp.toml"
    file.write_text('listen = ["127.0.0.1:1", "[::1]:2"]\n')
    assert resolve({}, {}, file).config.listen == expected


def test_roles_are_a_list_however_they_are_written(tmp_path: Path) -> None:
    expected = ("produce", "jobs")
    assert resolve({"roles": ["jobs", "produce"]}, {}).config.roles == expected
    assert resolve({"roles": ["jobs, produce,jobs"]}, {}).config.roles == expected
    assert resolve({}, {"WARP_ROLES": "jobs,produce"}).config.roles == expected
    file = tmp_path / "warp.toml"
    for text in ('roles = "jobs,produce"', 'roles = ["jobs", "produce"]'):
        file.write_text(text)
        assert resolve({}, {}, file).config.roles == expected
    assert config_of().roles == ROLES == cluster_model.ROLES


def test_toml_numbers_and_booleans_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "warp.toml"
    file.write_text("num-partitions = 6\nauto-create-topics = false\n")
    config = resolve({}, {}, file).config
    assert (config.num_partitions, config.auto_create_topics) == (6, False)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"WARP_FLUSH_BYTE": "1MiB"},
            "unknown environment variable WARP_FLUSH_BYTE; did you mean WARP_FLUSH_BYTES?",
        ),
        ({"WARP_ZZZZZZZZ": "1"}, "unknown environment variable WARP_ZZZZZZZZ"),
        ({"WARP_FLUSH_BYTES": "8"}, "WARP_FLUSH_BYTES: '8' has no unit; write it like 8MiB"),
        ({"WARP_FLUSH_BYTES": "1KiB"}, "WARP_FLUSH_BYTES: '1KiB' is below the minimum of 64KiB"),
        ({"WARP_FLUSH_INTERVAL": "2m"}, "WARP_FLUSH_INTERVAL: '2m' is above the maximum of 1m"),
        ({"WARP_AUTO_CREATE_TOPICS": "yes"}, "WARP_AUTO_CREATE_TOPICS: 'yes' is neither true nor false"),
        ({"WARP_NUM_PARTITIONS": "-1"}, "WARP_NUM_PARTITIONS: '-1' is not a whole number"),
        ({"WARP_LISTEN": "localhost"}, "WARP_LISTEN: 'localhost' is not HOST:PORT"),
        ({"WARP_LISTEN": ":9092"}, "WARP_LISTEN: ':9092' names no host"),
        ({"WARP_LISTEN": "::1:9092"}, "an IPv6 address stands in brackets"),
        ({"WARP_LISTEN": "*:9092"}, "'*' is not a host name or an address"),
        ({"WARP_LISTEN": "localhost:99999"}, "port 99999 is above 65535"),
        ({"WARP_LOG_LEVEL": "loud"}, "WARP_LOG_LEVEL: 'loud' is none of debug, info, warning, error"),
        ({"WARP_OBJECT_STORE": "/data"}, "WARP_OBJECT_STORE: '/data' is not a URL like file:///dir"),
        ({"WARP_OBJECT_STORE": "s3://bucket:x@y:z/"}, "is not a URL"),
        ({"WARP_ZONE": "a b"}, "WARP_ZONE: 'a b' is not 1 to 64 letters"),
        ({"WARP_CONFIG": "/nowhere/warp.toml"}, "can't read /nowhere/warp.toml: No such file or directory"),
    ],
)
def test_a_bad_variable_is_refused_with_its_name_and_the_reason(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve({}, environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('flush-byte = "1MiB"', "unknown key flush-byte; did you mean flush-bytes?"),
        ('flush_bytes = "1MiB"', "unknown key flush_bytes; did you mean flush-bytes?"),
        ("flush-bytes = 8", "flush-bytes: '8' has no unit"),
        ("flush-bytes = {a = 1}", "flush-bytes is dict, not text"),
        ('flush-bytes = ["1MiB"]', "flush-bytes is list, not text"),
        ("flush-bytes", "is not TOML"),
        ("listen = []", "--listen: at least one address is needed"),
        ("roles = []", "--roles: at least one of produce, fetch, jobs is needed"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_reason(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "warp.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve({}, {}, file)
    assert message in str(caught.value)


def test_a_file_that_is_not_utf8_or_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "warp.toml"
    file.write_bytes(b"zone = '\xff'")
    with pytest.raises(UsageError, match="is not TOML"):
        resolve({}, {}, file)
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(UsageError, match="is larger than"):
        resolve({}, {}, file)


@pytest.mark.parametrize("address", ["0.0.0.0:9092", "[::]:9092"])
def test_a_wildcard_without_an_advertised_address_is_refused_with_the_reason(address: str) -> None:
    with pytest.raises(UsageError, match="clients have to be told one address"):
        resolve({"listen": [address]}, {})
    config = resolve({"listen": [address], "advertise": ["broker.example"]}, {}).config
    assert config.advertise == (Address("broker.example", 0),)


def test_a_wildcard_is_not_advertised() -> None:
    with pytest.raises(UsageError, match="no client can connect to it"):
        resolve({"listen": ["0.0.0.0:9092"], "advertise": ["0.0.0.0:9092"]}, {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"listen": ["a:1", "b:2"], "advertise": ["c"]},
            "--advertise was given 1 times and --listen 2 times",
        ),
        ({"listen": ["a:1", "a:1"]}, "two listeners share the address a:1"),
        ({"listen": ["127.0.0.1:8080"]}, "two listeners share the address 127.0.0.1:8080"),
        ({"object-store": ["mem://"], "metadata": ["sqlite:///x"]}, "both in memory or both lasting"),
        ({"roles": ["write"]}, "--roles: 'write' is none of produce, fetch, jobs"),
        ({"http": ["off"], "advertise-http": ["a"]}, "--advertise-http names an address of what --http off"),
        (
            {"metadata": ["postgresql://warp@db/warp"]},
            "name the object store that they share as well, as in --object-store s3://BUCKET/PREFIX",
        ),
        (
            {"metadata": ["postgresql://warp@db/warp"], "object-store": ["mem://"]},
            "both in memory or both lasting",
        ),
        ({"zone": ["a", "b"]}, "--zone was given 2 times; it takes one value"),
        (
            {"message-bytes-max": ["200MiB"]},
            "--message-bytes-max (200MiB) is above --request-bytes-max (100MiB)",
        ),
        ({"request-memory": ["50MiB"]}, "--request-bytes-max (100MiB) is above --request-memory (50MiB)"),
        ({"flush-bytes": ["512MiB"]}, "--flush-bytes (512MiB) is above --request-memory (256MiB)"),
    ],
)
def test_values_that_contradict_each_other_are_refused(flags: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(flags, {})
    assert message in str(caught.value)


def test_one_store_in_memory_puts_the_other_there() -> None:
    assert config_of(object_store="mem://").metadata == "mem://"
    assert config_of(metadata="mem://").object_store == "mem://"


def test_agents_that_share_their_metadata_may_share_a_directory_and_listen_on_loopback() -> None:
    config = config_of(metadata="postgresql://warp@db/warp", object_store="file:///srv/objects")
    assert config.object_store == "file:///srv/objects"
    assert is_shared(config.metadata)
    assert is_shared("postgres://db/warp")
    assert not is_shared("sqlite:///x")


def test_a_url_may_name_several_hosts() -> None:
    url = "postgresql://warp:hunter2@a:5432,b:5433/warp"
    assert config_of(metadata=url, object_store="s3://bucket").metadata == url
    assert mask_url(url) == "postgresql://warp:********@a:5432,b:5433/warp"


def test_several_listeners_on_free_ports_are_no_conflict() -> None:
    assert len(config_of(listen=["127.0.0.1:0", "127.0.0.1:0"], http="127.0.0.1:0").listen) == 2


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://warp:hunter2@db/warp", "postgresql://warp:********@db/warp"),
        ("postgresql://warp@db/warp", "postgresql://warp@db/warp"),
        (
            "s3://bucket/p?region=eu&secret_access_key=abc&endpoint=http://x",
            "s3://bucket/p?region=eu&secret_access_key=********&endpoint=http://x",
        ),
        ("file:///data/objects", "file:///data/objects"),
        ("mem://", "mem://"),
        ("mem://?token=x", "mem://?token=********"),
        ("x://u:p@[bad", "x://u:********@[bad"),
        ("postgresql://u:p/w@db/warp", "postgresql://u:********@db/warp"),
        ("postgresql://u:p?w@db/warp?password=x", "postgresql://u:********@db/warp?password=********"),
        ("postgresql://u:p#w@x@db/warp", "postgresql://u:********@db/warp"),
        ("postgresql://u:p@s/w@db/warp", "postgresql://u:********@db/warp"),
        ("postgresql://u:p@s#w@db/warp", "postgresql://u:********@db/warp"),
        ("postgresql://u:p@s?w@db/warp", "postgresql://u:********@db/warp"),
        ("s3://bucket/with@sign?region=eu", "s3://bucket/with@sign?region=eu"),
    ],
)
def test_secrets_in_urls_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_a_password_is_not_repeated_by_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        resolve({}, {"WARP_METADATA": "postgresql://warp:hunter2@db:port/warp"})
    assert "hunter2" not in str(caught.value)


def test_shown_values_read_back_as_the_same_configuration() -> None:
    flags = {"listen": ["127.0.0.1:1", "[::1]:2"], "advertise": ["a", "b:3"], "zone": ["z"], "http": ["off"]}
    resolved = resolve(flags, {})
    shown = {
        name: (text.split(", ") if next(o for o in OPTIONS if o.name == name).repeated else [text])
        for name, text, _ in resolved.rows()
        if text
    }
    assert resolve(shown, {}).config == resolved.config


def test_flag_variable_and_key_have_one_name() -> None:
    option = next(option for option in OPTIONS if option.name == "flush-bytes")
    assert (option.flag, option.variable, option.field) == (
        "--flush-bytes",
        "WARP_FLUSH_BYTES",
        "flush_bytes_max",
    )


def test_the_table_and_the_dataclass_have_the_same_fields() -> None:
    assert [option.field for option in OPTIONS] == [field.name for field in dataclasses.fields(AgentConfig)]
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_every_default_is_valid_and_has_the_type_of_its_field() -> None:
    config = config_of()
    for name, annotation in typing.get_type_hints(AgentConfig).items():
        value = getattr(config, name)
        if typing.get_origin(annotation) is tuple:
            kind = typing.get_args(annotation)[0]
            assert all(isinstance(element, kind) for element in value), name
        else:
            assert isinstance(value, annotation), name


def test_numbers_have_limits_and_a_unit_in_their_name() -> None:
    counts = (
        "connections_max", "flush_uploads_max", "group_lag_series_max", "group_members_max",
        "metadata_connections_max", "num_partitions",
    )  # fmt: skip
    for option in OPTIONS:
        if type(getattr(config_of(), option.field)) is int:
            assert option.maximum is not None, option.name
            assert "_ms" in option.field or "_bytes" in option.field or option.field in counts, option.field


def test_names_far_from_everything_get_no_suggestion() -> None:
    assert did_you_mean("qqqqqq", ["listen"]) == ""


@pytest.mark.parametrize("text", ["[::1]:9092", "127.0.0.1:0", "broker-1.example:65535"])
def test_addresses_print_as_they_are_written(text: str) -> None:
    assert str(parse_address(text)) == text


def expected_rows() -> list[str]:
    """The table of docs/configuration.md, one line per option."""
    rows = []
    for option in OPTIONS:
        limits = ""
        if option.minimum is not None or option.maximum is not None:
            low = option.kind.show(option.minimum or 0)
            limits = f"{low} to {option.kind.show(option.maximum)}"
        metavar = option.kind.metavar.replace("|", "\\|")
        default = option.default_text if option.default is None else f"`{option.default}`"
        rows.append(
            f"| `{option.flag} {metavar}` | `{option.variable}` | {default} | {limits} | {option.help} |"
        )
    return rows


def test_the_documentation_lists_every_option_as_the_table_has_it() -> None:
    documented = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `--")
    ]
    assert documented == expected_rows()


@pytest.mark.parametrize(
    ("text", "host", "protocol"),
    [
        ("a:1", "a", "PLAINTEXT"),
        ("PLAINTEXT://a:1", "a", "PLAINTEXT"),
        ("ssl://a:1", "a", "SSL"),
        ("SASL_PLAINTEXT://a:1", "a", "SASL_PLAINTEXT"),
        (" SASL_SSL://[::1]:1", "::1", "SASL_SSL"),
    ],
)
def test_a_listener_has_the_protocol_that_it_names(text: str, host: str, protocol: str) -> None:
    with_certificate = {"tls-certificate": ["server.pem"]} if protocol.endswith("SSL") else {}
    (listener,) = resolve({"listen": [text], **with_certificate}, {}).config.listen
    assert listener == ListenAddress(host, 1, protocol)
    shown = {name: value for name, value, _ in resolve({"listen": [text], **with_certificate}, {}).rows()}
    assert resolve({"listen": [shown["listen"]], **with_certificate}, {}).config.listen == (listener,)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"listen": "TLS://a:1"}, "'TLS' is none of the protocols PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"listen": "://a:1"}, "'' is none of the protocols"),
        ({"listen": "SSL://a"}, "'a' is not HOST:PORT"),
        ({"listen": "SSL://a:1"}, "--listen SSL://a:1 needs a certificate: add --tls-certificate FILE"),
        ({"listen": "SASL_SSL://a:1"}, "--listen SASL_SSL://a:1 needs a certificate"),
        ({"http_tls": "true"}, "--http-tls true needs a certificate"),
        ({"tls_key": "a"}, "--tls-key is of no use without --tls-certificate"),
        ({"tls_client_ca": "a"}, "--tls-client-ca is of no use without --tls-certificate"),
        (
            {"tls_certificate": "a", "tls_client_auth": "required"},
            "--tls-client-auth required needs to know whose certificates to accept",
        ),
        ({"listen": "SASL_PLAINTEXT://a:1", "sasl_mechanisms": []}, "needs --sasl-mechanisms"),
        (
            {"listen": "SASL_PLAINTEXT://a:1", "sasl_mechanisms": "OAUTHBEARER"},
            "OAUTHBEARER in --sasl-mechanisms needs the keys that sign tokens: add --oauth-jwks",
        ),
        ({"listen": "SSL://a:1,a:1", "tls_certificate": "a"}, "two listeners share the address a:1"),
    ],
)
def test_listeners_that_lack_what_their_protocol_needs_are_refused(
    settings: dict[str, str], problem: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        config_of(**settings)


def test_super_users_that_nobody_can_be_are_refused() -> None:
    assert config_of(super_users="User:a; User:b:c;").super_users == ("User:a", "User:b:c")
    for wrong, problem in (("admin", "'admin' is not a principal"), ("user:admin", "use User:admin")):
        with pytest.raises(UsageError, match=re.escape(problem)):
            config_of(super_users=wrong)
