"""The client's settings: out of files of two worlds, options, and passwords that no list of processes shows."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from warp.cli.arguments import Parser, add_client_options
from warp.cli.client_config import ClientSettings, client_settings, from_java, read_client_config
from warp.config import refuse_unknown_variables
from warp.errors import UsageError


def found(*words: str) -> Namespace:
    parser = Parser("warp topic", "")
    add_client_options(parser)
    return parser.parse_all(words)


def write(directory: Path, text: str, name: str = "client.properties") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def nobody(prompt: str) -> str:
    raise AssertionError(f"nobody is asked: {prompt}")


def test_a_file_of_settings_is_read_with_comments_and_long_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "# a comment\n! another\n\nbootstrap.servers = broker.example:9094\n"
        "security.protocol=SASL_SSL\r\nsasl.mechanisms=PLAIN\n"
        "sasl.username=alice\nsasl.password=a=b#c\nssl.ca.\\\n   location=/ca.pem\nclient.rack=x\\\\\n",
    )
    settings = client_settings(found("--client-config", str(file)), {}, nobody)
    assert settings == ClientSettings(
        "broker.example:9094",
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": "a=b#c",
            "ssl.ca.location": "/ca.pem",
            "client.rack": "x\\\\",
        },
    )


def test_options_go_before_the_file_and_the_file_of_the_environment_is_the_last(tmp_path: Path) -> None:
    named = write(tmp_path, "acks=1\nlinger.ms=3\n")
    other = write(tmp_path, "acks=0\n", "other")
    environment = {"WARP_CLIENT_CONFIG": str(other)}
    assert client_settings(found(), environment) == (None, {"acks": "0"})
    assert client_settings(found("--client-config", str(named), "-X", "acks=all"), environment) == (
        None,
        {"acks": "all", "linger.ms": "3"},
    )


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ({"sasl.mechanism": "PLAIN", "key.serializer": "x"}, {"sasl.mechanism": "PLAIN"}),
        (
            {
                "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
                'username="al\\"ice" password="p=w;\\\\";'
            },
            {"sasl.username": 'al"ice', "sasl.password": "p=w;\\"},
        ),
        (
            {"sasl.jaas.config": "a.PlainLoginModule required username='u' password=p;"},
            {"sasl.username": "u", "sasl.password": "p"},
        ),
        (
            {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": "/t.pem",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": "/k.pem",
            },
            {
                "ssl.ca.location": "/t.pem",
                "ssl.certificate.location": "/k.pem",
                "ssl.key.location": "/k.pem",
            },
        ),
        ({"ssl.keystore.location": "/k.p12"}, {"ssl.keystore.location": "/k.p12"}),
        (
            {"ssl.endpoint.identification.algorithm": ""},
            {"ssl.endpoint.identification.algorithm": "none"},
        ),
        ({"ssl.truststore.certificates": "PEM"}, {"ssl.ca.pem": "PEM"}),
    ],
)
def test_what_java_clients_write_another_way_is_understood(
    text: dict[str, str], settings: dict[str, str]
) -> None:
    assert from_java(text) == settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ssl.truststore.location=/t.jks", "ssl.ca.location"),
        ("ssl.keystore.location=/k.jks", "ssl.certificate.location"),
        ("ssl.keystore.type=JKS\nssl.keystore.location=/k", "ssl.certificate.location"),
        ("sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required;", "Krb5LoginModule"),
        ("sasl.jaas.config=a.PlainLoginModule required password=secret123;", "no username and password"),
        ("sasl.jaas.config=", "no login module"),
        ("nonsense", "line 1 is not NAME=VALUE"),
        ("a=b\n=secret123", "line 2 is not NAME=VALUE"),
    ],
)
def test_what_means_nothing_here_is_refused_with_what_to_write_instead(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(UsageError, match=r"client\.properties") as error:
        read_client_config(write(tmp_path, text))
    assert told in str(error.value)
    assert "secret123" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret", "ssl.key.pem",
        "sasl.jaas.config", "sasl.oauthbearer.assertion.private.key.passphrase", "SASL.PASSWORD",
    ],
)  # fmt: skip
def test_no_secret_is_taken_from_the_arguments(name: str) -> None:
    with pytest.raises(UsageError, match=r"everybody on this machine can read .* --client-config") as error:
        client_settings(found("-X", f"{name}=secret123"), {})
    assert "secret123" not in str(error.value)


def test_the_password_comes_from_a_file_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, "pencil = \r\nmore\n", "password")
    words = (
        "-X",
        "security.protocol=SASL_SSL",
        "-X",
        "sasl.mechanism=SCRAM-SHA-256",
        "-X",
        "sasl.username=alice",
    )
    settings = client_settings(found(*words, "--client-password-file", str(file)), {}, nobody)
    assert settings.options["sasl.password"] == "pencil = "
    with pytest.raises(UsageError, match="the password, is empty"):
        client_settings(found("--client-password-file", str(write(tmp_path, "\n", "empty"))), {})
    with pytest.raises(UsageError, match="No such file"):
        client_settings(found("--client-password-file", str(tmp_path / "gone")), {})


@pytest.mark.parametrize(
    ("words", "is_asked"),
    [
        (("security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", "sasl.username=alice"), True),
        (("security.protocol=sasl_plaintext", "sasl.mechanisms=SCRAM-SHA-512", "sasl.username=alice"), True),
        (("security.protocol=SASL_SSL", "sasl.mechanism=OAUTHBEARER", "sasl.username=alice"), False),
        (("security.protocol=SSL", "sasl.mechanism=PLAIN", "sasl.username=alice"), False),
        (("security.protocol=SASL_SSL", "sasl.mechanism=PLAIN"), False),
    ],
)
def test_a_password_that_is_missing_is_asked_for(words: tuple[str, ...], is_asked: bool) -> None:
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return "typed"

    settings = client_settings(found(*(word for text in words for word in ("-X", text))), {}, ask)
    assert prompts == (["Password of alice: "] if is_asked else [])
    assert settings.options.get("sasl.password") == ("typed" if is_asked else None)


def test_an_agent_leaves_the_variables_of_commands_alone() -> None:
    names = ("WARP_CLIENT_CONFIG", "WARP_HTTP_USER", "WARP_HTTP_PASSWORD_FILE", "WARP_HTTP_CA")
    refuse_unknown_variables(dict.fromkeys(names, "x"))
    with pytest.raises(UsageError, match="did you mean WARP_HTTP_PASSWORD_FILE"):
        refuse_unknown_variables({"WARP_HTTP_PASSWORD": "x"})


def test_files_that_cannot_be_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="larger than 65536 bytes"):
        read_client_config(write(tmp_path, "a=" + "x" * 70_000))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_client_config(binary)
    with pytest.raises(UsageError, match="can't read"):
        read_client_config(tmp_path)
