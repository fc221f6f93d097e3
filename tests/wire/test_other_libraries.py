"""Bytes that we write, read by kafka-python and kio; and what they write then is again what we wrote."""

from __future__ import annotations

import importlib
import io
import pkgutil
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kio.serial import entity_reader, entity_writer

from tests.wire.messages import MESSAGES
from tests.wire.shapes import kio_class
from tests.wire.strategies import every_version
from warp.protocol import Message, encode

# kafka-python reads an answer to ApiVersions that carries an error as v0, whatever was asked for.
KAFKA_PYTHON_NEEDS: dict[str, dict[str, object]] = {"ApiVersionsResponse": {"error_code": 0}}


@cache
def kafka_python_classes() -> dict[str, Any]:
    """Every message class of kafka-python, by name."""
    found: dict[str, Any] = {}
    package = importlib.import_module("kafka.protocol")
    for module in pkgutil.walk_packages(package.__path__, "kafka.protocol."):
        if ".old" in module.name or module.name.endswith("generate_stubs"):
            continue
        members = vars(importlib.import_module(module.name)).items()
        found |= {
            name: value
            for name, value in members
            if name.endswith(("Request", "Response")) and isinstance(value, type) and hasattr(value, "decode")
        }
    return found


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_kafka_python_reads_what_we_write(message: type[Message]) -> None:
    theirs = kafka_python_classes().get(message.__name__)
    if theirs is None:
        assert kio_class(message.__name__, message.versions[1]) is not None
        return

    @settings(max_examples=3, suppress_health_check=list(HealthCheck))
    @given(every_version(message, modest=True))
    def check(made: list[tuple[int, Message]]) -> None:
        for version, original in made:
            for name, value in KAFKA_PYTHON_NEEDS.get(message.__name__, {}).items():
                setattr(original, name, value)
            encoded = encode(original, version)
            decoded = theirs.decode(encoded, version=version)
            decoded._header = None  # encode() looks at it, decode() does not set it
            assert bytes(decoded.encode(version=version)) == encoded, (version, original)

    check()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_kio_reads_what_we_write(message: type[Message]) -> None:
    @settings(max_examples=3, suppress_health_check=list(HealthCheck))
    @given(every_version(message, modest=True))
    def check(made: list[tuple[int, Message]]) -> None:
        for version, original in made:
            theirs = kio_class(message.__name__, version)
            assert theirs is not None
            encoded = encode(original, version)
            decoded, size = entity_reader(theirs)(encoded, 0)
            assert size == len(encoded), (version, original)
            written = io.BytesIO()
            entity_writer(theirs)(written, decoded)
            assert written.getvalue() == encoded, (version, original)

    check()
