"""Real clients against an agent on Ceph's gateway: the tests of `tests/clients` that store and read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

# Imported tests run here, with the fixtures of this module.
from tests.clients.test_aiokafka import (  # noqa: F401
    test_records_come_back_as_sent as test_records_come_back_through_aiokafka,
)
from tests.clients.test_confluent import (  # noqa: F401
    test_a_topic_lives_from_creation_to_deletion,
    test_headers_and_timestamps_come_back,
    test_offsets_for_times_and_watermarks,
    test_records_before_a_deleted_offset_are_gone,
    test_records_come_back_as_sent as test_records_come_back_through_librdkafka,
)
from tests.clients.test_kafka_python import (  # noqa: F401
    test_records_come_back_as_sent as test_records_come_back_through_kafka_python,
)
from tests.support.process import AgentProcess
from tests.support.rgw import RgwServer
from tests.support.s3 import environment_of

pytestmark = pytest.mark.rgw


@pytest.fixture(scope="module")
def bootstrap(rgw_server: RgwServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an agent listens that stores on Ceph, with signed payloads."""
    options = ["--object-store", rgw_server.url("warp", sign_payload="true"), "--flush-interval", "20ms"]
    environment = environment_of(rgw_server.credentials)
    with AgentProcess(
        tmp_path_factory.mktemp("clients") / "data", *options, environment=environment
    ) as agent:
        yield agent.bootstrap


@pytest.fixture
def topic() -> str:
    """A topic name that no other test uses; it comes into being by auto creation."""
    return f"t-{uuid.uuid4().hex[:12]}"
