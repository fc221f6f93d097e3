"""ApiVersions: what is advertised, in every version, and to clients that are newer than the agent."""

from __future__ import annotations

import struct

import pytest

from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.handlers.table import TABLE
from warp.protocol import ApiKey, decode
from warp.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

KAFKA_4_3 = {
    ApiKey.PRODUCE: (0, 13),
    ApiKey.FETCH: (4, 18),
    ApiKey.LIST_OFFSETS: (1, 11),
    ApiKey.METADATA: (0, 13),
    ApiKey.OFFSET_COMMIT: (2, 10),
    ApiKey.OFFSET_FETCH: (1, 10),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.JOIN_GROUP: (0, 9),
    ApiKey.HEARTBEAT: (0, 4),
    ApiKey.LEAVE_GROUP: (0, 5),
    ApiKey.SYNC_GROUP: (0, 5),
    ApiKey.DESCRIBE_GROUPS: (0, 6),
    ApiKey.LIST_GROUPS: (0, 5),
    ApiKey.SASL_HANDSHAKE: (0, 1),
    ApiKey.API_VERSIONS: (0, 4),
    ApiKey.CREATE_TOPICS: (2, 7),
    ApiKey.DELETE_TOPICS: (1, 6),
    ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.INIT_PRODUCER_ID: (0, 5),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    ApiKey.DESCRIBE_ACLS: (1, 3),
    ApiKey.CREATE_ACLS: (1, 3),
    ApiKey.DELETE_ACLS: (1, 3),
    ApiKey.DESCRIBE_CONFIGS: (1, 4),
    ApiKey.ALTER_CONFIGS: (0, 2),
    ApiKey.SASL_AUTHENTICATE: (0, 2),
    ApiKey.CREATE_PARTITIONS: (0, 3),
    ApiKey.DELETE_GROUPS: (0, 2),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: (0, 1),
    ApiKey.OFFSET_DELETE: (0, 0),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: (0, 1),
    ApiKey.ALTER_CLIENT_QUOTAS: (0, 1),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: (0, 0),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: (0, 0),
    ApiKey.DESCRIBE_CLUSTER: (0, 2),
    ApiKey.LIST_CONFIG_RESOURCES: (0, 1),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: (0, 0),
}
"""What Kafka 4.3 advertises of the APIs served here: clients guess a broker's release from these numbers."""


@pytest.mark.parametrize("version", range(5))
def test_every_version_lists_what_kafka_lists(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        request = ApiVersionsRequest(client_software_name="raw", client_software_version="1.0")
        answer = await client.ask(request, version)
        assert answer.error_code == ErrorCode.NONE
        listed = {ApiKey(api.api_key): (api.min_version, api.max_version) for api in answer.api_keys}
        assert listed == KAFKA_4_3
        assert answer.finalized_features == answer.supported_features == []

    with_memory_broker(test)


def test_the_table_of_apis_is_what_is_listed() -> None:
    assert {entry.key: entry.advertised for entry in TABLE} == KAFKA_4_3
    assert [entry.key for entry in TABLE] == sorted(entry.key for entry in TABLE)


@pytest.mark.parametrize("version", [5, 99, 32767, -1])
def test_a_version_too_new_is_answered_in_version_0_and_the_connection_goes_on(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        body = struct.pack(">hhih3s", ApiKey.API_VERSIONS, version, 77, 3, b"raw") + b"\0\x09whatever"
        client.write(struct.pack(">i", len(body)) + body)
        frame = await client.frame()
        assert frame[:4] == struct.pack(">i", 77)
        answer = decode(ApiVersionsResponse, 0, frame, 4)
        assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
        assert [(api.api_key, api.min_version, api.max_version) for api in answer.api_keys] == [(18, 0, 4)]
        again = ApiVersionsRequest(client_software_name="raw", client_software_version="1.0")
        assert (await client.ask(again, 4)).error_code == ErrorCode.NONE

    with_memory_broker(test)


@pytest.mark.parametrize("name", ["", " raw", "raw!", "-raw", "raw\n", "raw "])
def test_a_malformed_name_of_the_client_software_is_refused(
    with_memory_broker: RunWithBroker, name: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for software, version in ((name, "1.0"), ("raw", name)):
            request = ApiVersionsRequest(client_software_name=software, client_software_version=version)
            assert (await client.ask(request, 3)).error_code == ErrorCode.INVALID_REQUEST

    with_memory_broker(test)


def test_the_client_id_may_be_null_or_empty(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for client_id in (None, ""):
            number = client.send(ApiVersionsRequest(), 0, client_id)
            assert (await client.answer(ApiKey.API_VERSIONS, 0, number)).error_code == ErrorCode.NONE

    with_memory_broker(test)
