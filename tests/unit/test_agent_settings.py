"""What an agent tells others of itself, by its configuration."""

from __future__ import annotations

import pytest

from warp.agent_settings import listener_configs, peer_address
from warp.config import config_of
from warp.config_values import Address
from warp.handlers.context import Endpoint

KAFKA = Endpoint("broker.example", 9092)


@pytest.mark.parametrize(
    ("told", "kafka", "http", "expected"),
    [
        (None, KAFKA, Address("0.0.0.0", 8080), "broker.example:8080"),
        (None, KAFKA, Address("10.0.0.1", 8080), "broker.example:8080"),
        (None, Endpoint("::1", 9092), Address("::1", 8080), "[::1]:8080"),
        (None, Endpoint("127.0.0.1", 9092), Address("127.0.0.1", 41234), "127.0.0.1:41234"),
        (None, KAFKA, Address("127.0.0.1", 8080), None),
        (None, KAFKA, None, None),
        ("10.0.0.9", KAFKA, Address("0.0.0.0", 8080), "10.0.0.9:8080"),
        ("10.0.0.9:80", KAFKA, Address("127.0.0.1", 8080), "10.0.0.9:80"),
    ],
)
def test_other_agents_are_told_where_they_reach_the_http_face_or_that_they_dont(
    told: str | None, kafka: Endpoint, http: Address | None, expected: str | None
) -> None:
    config = config_of(**({} if told is None else {"advertise_http": told}))
    assert peer_address(config, kafka, http) == expected


def test_an_advertised_address_without_a_port_takes_that_of_its_listener() -> None:
    config = config_of(listen=["0.0.0.0:1", "127.0.0.1:0"], advertise=["a", "b:7"])
    assert [listener.advertise for listener in listener_configs(config)] == [
        Endpoint("a", 1),
        Endpoint("b", 7),
    ]
