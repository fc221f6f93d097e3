"""How the commands' own client reads addresses and the library's settings."""

from __future__ import annotations

import pytest

from warp.cli.wire_client import _address, _check_settings
from warp.config_values import Address
from warp.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("broker.example:9093", Address("broker.example", 9093)),
        (" broker.example", Address("broker.example", 9092)),
        ("SASL_SSL://broker.example:9093", Address("broker.example", 9093)),
        ("[::1]:7", Address("::1", 7)),
        ("[::1]", Address("::1", 9092)),
    ],
)
def test_addresses_are_read_as_the_library_reads_them(text: str, address: Address) -> None:
    assert _address(text) == address


@pytest.mark.parametrize("text", ["", "broker.example:", "broker.example:http", "broker.example:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        _address(text)


def test_settings_of_tls_that_are_not_understood_are_refused_where_tls_is_spoken() -> None:
    settings = {"ssl.ca.location": "a", "ssl.cipher.suites": "b", "socket.timeout.ms": "1"}
    with pytest.raises(UsageError, match=r"does not understand ssl\.cipher\.suites"):
        _check_settings(settings, uses_tls=True)
    _check_settings(settings, uses_tls=False)
