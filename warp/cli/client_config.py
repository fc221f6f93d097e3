"""Settings of the client library: from a file, from options, and a password that no list of processes shows.

The file holds lines NAME=VALUE, as kcat's and librdkafka's do. Files of Java clients mostly do too: what they write
another way is understood where it means the same, and refused with what to write instead where it doesn't.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from warp.config import CLIENT_CONFIG_VARIABLE
from warp.errors import UsageError

FILE_BYTES_MAX: Final = 64 * 1024
PASSWORD_BYTES_MAX: Final = 4 * 1024
SECRET_WORDS: Final = (
    "password",
    "secret",
    "passphrase",
    "key.pem",
    "jaas",
    "keystore.key",
    "oauthbearer.config",
)
"""A setting with one of these in its name is not taken from the command line."""

_BOOTSTRAP_NAMES: Final = ("bootstrap.servers", "metadata.broker.list")
_MECHANISMS_WITH_PASSWORDS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_LOGIN_MODULES: Final = ("PlainLoginModule", "ScramLoginModule")
_JAAS_OPTION = re.compile(r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;"']+))""")
_JAVA_ALONE: Final = (
    "key.serializer", "value.serializer", "key.deserializer", "value.deserializer", "ssl.truststore.password",
    "ssl.truststore.type", "ssl.keystore.type",
)  # fmt: skip
"""Settings of Java clients that say nothing to this one, or are read together with another."""


class ClientSettings(NamedTuple):
    """Where to connect, None when only the command line may say so, and what the user sets, by librdkafka's names."""

    bootstrap: str | None
    options: dict[str, str]


def client_settings(
    found: Namespace, environment: Mapping[str, str], ask: Callable[[str], str] | None = None
) -> ClientSettings:
    """The settings that a command was given. Options go before the file, and the password file before both.

    `ask` prompts for a password; without it, the terminal does. Raises UsageError, which holds no secret.
    """
    path = found.client_config or environment.get(CLIENT_CONFIG_VARIABLE) or None
    options = read_client_config(Path(path)) if path else {}
    options.update(_argument_options(found.client_option))
    bootstrap = None
    for name in _BOOTSTRAP_NAMES:
        bootstrap = options.pop(name, None) or bootstrap
    if found.client_password_file is not None:
        options["sasl.password"] = read_password(Path(found.client_password_file), "--client-password-file")
    if _lacks_password(options):
        options["sasl.password"] = (ask or _ask)(f"Password of {options['sasl.username']}: ")
    return ClientSettings(bootstrap, options)


def read_client_config(path: Path) -> dict[str, str]:
    """The settings in a file, by librdkafka's names. Raises UsageError."""
    settings: dict[str, str] = {}
    for number, line in _lines(_read(path, FILE_BYTES_MAX, "--client-config")):
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{path}, line {number} is not NAME=VALUE")
        settings[name.strip()] = value.strip()
    try:
        return from_java(settings)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def from_java(settings: Mapping[str, str]) -> dict[str, str]:
    """What Java clients write another way, by librdkafka's names; the rest as it is.

    Raises ValueError for what can't be said to librdkafka.
    """
    found = {name: value for name, value in settings.items() if name not in _JAVA_ALONE}
    jaas = found.pop("sasl.jaas.config", None)
    if jaas is not None:
        found = {**_from_jaas(jaas), **found}
    truststore = found.pop("ssl.truststore.location", None)
    if truststore is not None:
        if settings.get("ssl.truststore.type", "").upper() != "PEM":
            raise ValueError(
                "ssl.truststore.location names a Java key store, which librdkafka can't read: write its certificates "
                "to a PEM file (keytool -exportcert -rfc) and name that with ssl.ca.location"
            )
        found.setdefault("ssl.ca.location", truststore)
    keystore_type = settings.get("ssl.keystore.type", "").upper()
    keystore = found.get("ssl.keystore.location")
    if keystore is not None and keystore_type == "PEM":
        del found["ssl.keystore.location"]
        found.setdefault("ssl.certificate.location", keystore)
        found.setdefault("ssl.key.location", keystore)
    elif keystore is not None and (keystore_type == "JKS" or keystore.lower().endswith(".jks")):
        raise ValueError(
            "ssl.keystore.location names a Java key store, which librdkafka can't read: name PEM files with "
            "ssl.certificate.location and ssl.key.location, or a PKCS#12 file"
        )
    for java, name in (
        ("ssl.truststore.certificates", "ssl.ca.pem"),
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
    ):
        if java in found:
            found.setdefault(name, found.pop(java))
    if found.get("ssl.endpoint.identification.algorithm") == "":
        found["ssl.endpoint.identification.algorithm"] = "none"
    return found


def read_password(path: Path, option: str) -> str:
    """The first line of a file. Raises UsageError."""
    password = _read(path, PASSWORD_BYTES_MAX, option).partition("\n")[0].rstrip("\r")
    if not password:
        raise UsageError(f"{option} {path}: its first line, the password, is empty")
    return password


def prompt_for_password(prompt: str, instead: str) -> str:
    """What the user types on the terminal, unseen. Raises UsageError that says what to do `instead` without one."""
    try:
        with open("/dev/tty"):  # noqa: PTH123 - a device, which is only looked at
            is_there = sys.stderr.isatty()
    except OSError:
        is_there = False
    if not is_there:
        raise UsageError(f"there is no terminal to ask for a password; {instead}")
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise UsageError(f"no password was given; {instead}") from None


def _ask(prompt: str) -> str:
    return prompt_for_password(
        prompt, "name a file with --client-password-file, or set sasl.password in the file of --client-config"
    )


def _lacks_password(options: Mapping[str, str]) -> bool:
    mechanism = options.get("sasl.mechanism") or options.get("sasl.mechanisms") or ""
    uses_sasl = options.get("security.protocol", "").upper().startswith("SASL_")
    has_name = bool(options.get("sasl.username")) and "sasl.password" not in options
    return uses_sasl and has_name and mechanism.upper() in _MECHANISMS_WITH_PASSWORDS


def _argument_options(texts: list[str]) -> dict[str, str]:
    """Of --client-option. Raises UsageError."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--client-option {text!r} is not NAME=VALUE")
        if any(word in name.lower() for word in SECRET_WORDS):
            raise UsageError(
                f"--client-option {name}: everybody on this machine can read the arguments of a process, so no secret "
                "is taken from them; write it to a file that only you can read, and name that with "
                "--client-config (or --client-password-file for sasl.password)"
            )
        options[name] = value
    return options


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with a setting, with their numbers; one that ends with a backslash goes on in the next."""
    lines: list[tuple[int, str]] = []
    begun: tuple[int, str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if begun is None and (not line or line.startswith(("#", "!"))):
            continue
        start, before = begun or (number, "")
        whole = before + line
        begun = None
        if (len(whole) - len(whole.rstrip("\\"))) % 2:
            begun = start, whole[:-1]
        else:
            lines.append((start, whole))
    return lines if begun is None else [*lines, begun]


def _from_jaas(text: str) -> dict[str, str]:
    """User and password out of `….PlainLoginModule required username="…" password="…";`. Raises ValueError."""
    module = text.split(None, 1)[0].rpartition(".")[2] if text.strip() else ""
    if module not in _LOGIN_MODULES:
        raise ValueError(
            f"sasl.jaas.config names {module or 'no login module'}; only {' and '.join(_LOGIN_MODULES)} mean something "
            "here: write sasl.username and sasl.password, or librdkafka's sasl.oauthbearer settings, instead"
        )
    options = {
        match[1]: re.sub(r"\\(.)", r"\1", match[2] or match[3] or match[4] or "")
        for match in _JAAS_OPTION.finditer(text)
    }
    if "username" not in options or "password" not in options:
        raise ValueError(
            "sasl.jaas.config has no username and password; write sasl.username and sasl.password instead"
        )
    return {"sasl.username": options["username"], "sasl.password": options["password"]}


def _read(path: Path, bytes_max: int, option: str) -> str:
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) > bytes_max:
            raise UsageError(f"{option} {path} is larger than {bytes_max} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"{option}: can't read {path}: {error.strerror or os.strerror(error.errno or 0)}"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {path} is not UTF-8 text") from None
