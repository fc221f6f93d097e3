"""DescribeClientQuotas and AlterClientQuotas over the wire."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
    DescribeClientQuotasRequest,
    QuotaFilterComponent,
)

EXACT, DEFAULT, ANY = range(3)
Entity = dict[str, str | None]


def alteration(
    entity: Entity | list[tuple[str, str | None]], values: dict[str, float | None]
) -> AlterQuotaEntry:
    parts = entity.items() if isinstance(entity, dict) else entity
    return AlterQuotaEntry(
        entity=[AlterQuotaEntity(entity_type=kind, entity_name=name) for kind, name in parts],
        ops=[
            AlterQuotaOperation(key=key, value=0.0 if value is None else value, remove=value is None)
            for key, value in values.items()
        ],
    )


async def alter(
    client: Client, *entries: AlterQuotaEntry, version: int = 1, validate_only: bool = False
) -> list[tuple[int, str | None]]:
    request = AlterClientQuotasRequest(entries=list(entries), validate_only=validate_only)
    answer = await client.ask(request, version)
    for asked, told in zip(entries, answer.entries, strict=True):
        assert [(e.entity_type, e.entity_name) for e in told.entity] == [
            (e.entity_type, e.entity_name) for e in asked.entity
        ]
    return [(entry.error_code, entry.error_message) for entry in answer.entries]


async def ask(
    client: Client, *components: tuple[str, int, str | None], strict: bool = False, version: int = 1
) -> Any:
    parts = [
        QuotaFilterComponent(entity_type=kind, match_type=match, match=name)
        for kind, match, name in components
    ]
    return await client.ask(DescribeClientQuotasRequest(components=parts, strict=strict), version)


async def describe(client: Client, *components: tuple[str, int, str | None], **options: Any) -> list[Any]:
    answer = await ask(client, *components, **options)
    assert (answer.error_code, answer.error_message) == (0, None)
    return [
        ({e.entity_type: e.entity_name for e in entry.entity}, {v.key: v.value for v in entry.values})
        for entry in answer.entries
    ]


@pytest.mark.parametrize("version", [0, 1])
def test_quotas_are_set_changed_and_removed(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        alice: Entity = {"user": "alice", "client-id": None}
        done = [(0, None)]
        assert await describe(client, version=version) == []
        first = alteration(alice, {"producer_byte_rate": 1024.0, "request_percentage": 12.5})
        assert await alter(client, first, version=version) == done
        assert await describe(client, version=version) == [
            (alice, {"producer_byte_rate": 1024.0, "request_percentage": 12.5})
        ]
        second = alteration(
            alice, {"producer_byte_rate": None, "request_percentage": 25.0, "consumer_byte_rate": None}
        )
        assert await alter(client, second, version=version) == done
        assert await describe(client, version=version) == [(alice, {"request_percentage": 25.0})]
        assert await alter(client, alteration(alice, {"request_percentage": None}), version=version) == done
        assert await describe(client, version=version) == []

    with_broker(test)


def test_filters_choose_by_name_default_and_type(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        entities: list[Entity] = [
            {"user": "alice"}, {"user": "bob"}, {"user": None}, {"user": "alice", "client-id": "app"},
            {"client-id": "app"}, {"client-id": None},
        ]  # fmt: skip
        values: dict[str, float | None] = {"consumer_byte_rate": 7.0}
        entries = [alteration(entity, values) for entity in entities]
        entries.append(alteration({"ip": "10.0.0.1"}, {"connection_creation_rate": 3.0}))
        assert await alter(client, *entries) == [(0, None)] * 7

        async def found(*components: tuple[str, int, str | None], strict: bool = False) -> list[Entity]:
            return [entity for entity, _ in await describe(client, *components, strict=strict)]

        assert len(await found()) == 7
        assert await found(strict=True) == []
        assert await found(("user", EXACT, "alice")) == [
            {"user": "alice", "client-id": "app"},
            {"user": "alice"},
        ]
        assert await found(("user", EXACT, "alice"), strict=True) == [{"user": "alice"}]
        assert await found(("user", DEFAULT, None)) == [{"user": None}]
        every_user = await found(("user", ANY, None), strict=True)
        assert every_user == [{"user": "alice"}, {"user": "bob"}, {"user": None}]
        both = await found(("user", ANY, None), ("client-id", EXACT, "app"))
        assert both == [{"user": "alice", "client-id": "app"}]
        assert await found(("ip", ANY, None)) == [{"ip": "10.0.0.1"}]
        assert await found(("user", EXACT, "nobody")) == []

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("components", "code"),
    [
        ([("group", EXACT, "x")], ErrorCode.UNSUPPORTED_VERSION),
        ([("", EXACT, "x")], ErrorCode.INVALID_REQUEST),
        ([("user", EXACT, None)], ErrorCode.INVALID_REQUEST),
        ([("user", DEFAULT, "x")], ErrorCode.INVALID_REQUEST),
        ([("user", ANY, "x")], ErrorCode.INVALID_REQUEST),
        ([("user", 3, None)], ErrorCode.INVALID_REQUEST),
        ([("user", -1, "x")], ErrorCode.INVALID_REQUEST),
        ([("user", EXACT, "x"), ("user", DEFAULT, None)], ErrorCode.INVALID_REQUEST),
        ([("user", EXACT, "x"), ("ip", EXACT, "10.0.0.1")], ErrorCode.INVALID_REQUEST),
        ([("client-id", ANY, None), ("ip", ANY, None)], ErrorCode.INVALID_REQUEST),
        ([("user", EXACT, "x" * 5_000)], ErrorCode.INVALID_REQUEST),
    ],
)
def test_filters_that_mean_nothing_are_refused(
    with_memory_broker: RunWithBroker, components: list[tuple[str, int, str | None]], code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for version in (0, 1):
            answer = await ask(client, *components, version=version)
            assert answer.error_code == code
            assert answer.error_message
            assert answer.entries is None

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("entity", "values"),
    [
        ([], {"producer_byte_rate": 1.0}),
        ([("group", "x")], {"producer_byte_rate": 1.0}),
        ([("user", "")], {"producer_byte_rate": 1.0}),
        ([("user", "a"), ("user", "b")], {"producer_byte_rate": 1.0}),
        ([("user", "a"), ("ip", "10.0.0.1")], {"producer_byte_rate": 1.0}),
        ([("user", "x" * 5_000)], {"producer_byte_rate": 1.0}),
        ([("ip", "no address")], {"connection_creation_rate": 1.0}),
        ([("ip", "10.0.0.1")], {"producer_byte_rate": 1.0}),
        ([("user", "a")], {"connection_creation_rate": 1.0}),
        ([("user", "a")], {"bytes_per_second": 1.0}),
        ([("user", "a")], {"bytes_per_second": None}),
        ([("user", "a")], {"producer_byte_rate": 0.0}),
        ([("user", "a")], {"producer_byte_rate": -1.0}),
        ([("user", "a")], {"producer_byte_rate": 1.5}),
        ([("user", "a")], {"producer_byte_rate": math.nan}),
        ([("user", "a")], {"producer_byte_rate": math.inf}),
        ([("user", "a")], {"request_percentage": -0.0}),
        ([("user", "a")], {"controller_mutation_rate": -math.inf}),
        ([("ip", None)], {"connection_creation_rate": 0.5}),
    ],
)
def test_alterations_that_can_t_be_are_refused_and_change_nothing(
    with_memory_broker: RunWithBroker, entity: list[tuple[str, str | None]], values: dict[str, float | None]
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        good = alteration({"user": "good"}, {"producer_byte_rate": 5.0})
        both = {"request_percentage": 5.0, **values} if entity and entity[0][0] != "ip" else values
        bad = alteration(entity, both)
        for version in (0, 1):
            [(code, message), other] = await alter(client, bad, good, version=version)
            assert code == ErrorCode.INVALID_REQUEST
            assert message
            assert other == (0, None)
        assert await describe(client) == [({"user": "good"}, {"producer_byte_rate": 5.0})]

    with_memory_broker(test)


def test_an_entity_or_a_key_that_stands_there_twice_is_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        one = alteration([("user", "a"), ("client-id", "b")], {"producer_byte_rate": 1.0})
        same = alteration([("client-id", "b"), ("user", "a")], {"producer_byte_rate": 2.0})
        assert [code for code, _ in await alter(client, one, same)] == [ErrorCode.INVALID_REQUEST] * 2
        twice = alteration({"user": "a"}, {"producer_byte_rate": 1.0})
        twice.ops = twice.ops * 2
        assert [code for code, _ in await alter(client, twice)] == [ErrorCode.INVALID_REQUEST]
        assert await describe(client) == []

    with_memory_broker(test)


def test_validate_only_checks_and_changes_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        good = alteration({"user": "a"}, {"producer_byte_rate": 1.0})
        bad = alteration({"user": "b"}, {"producer_byte_rate": -1.0})
        answers = await alter(client, good, bad, validate_only=True)
        assert [code for code, _ in answers] == [0, ErrorCode.INVALID_REQUEST]
        assert await describe(client) == []

    with_memory_broker(test)


def test_addresses_are_kept_in_one_form(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        entry = alteration({"ip": "0:0:0:0:0:0:0:1"}, {"connection_creation_rate": 1.0})
        assert await alter(client, entry) == [(0, None)]
        assert await describe(client, ("ip", EXACT, "::1")) == [
            ({"ip": "::1"}, {"connection_creation_rate": 1.0})
        ]

    with_memory_broker(test)


def test_changes_are_in_the_audit_log(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await alter(client, alteration({"user": "alice"}, {"producer_byte_rate": 1.0}))
        await alter(client, alteration({"user": "alice"}, {"producer_byte_rate": 2.0}))

    caplog.set_level("INFO", "warp.audit")
    with_memory_broker(test)
    told = [record.__dict__ for record in caplog.records if record.message == "altered client quotas"]
    assert len(told) == 2
    assert told[1]["principal"] == "User:ANONYMOUS"
    assert "alice" in told[1]["items"]
    assert "1.0" in told[1]["items"]
    assert "2.0" in told[1]["items"]


def test_answers_take_their_memory_from_the_budget_for_answers(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        entries = [
            alteration({"user": f"user {number}"}, {"producer_byte_rate": 1.0}) for number in range(2_000)
        ]
        assert set(await alter(client, *entries)) == {(0, None)}
        assert len(await describe(client)) == 2_000
        budget = broker.agent.log.fetch_memory
        taken_bytes = budget.bytes_max - budget.used_bytes - 1_500_000
        budget.charge(taken_bytes)
        answer = await ask(client)
        assert (answer.error_code, answer.entries) == (ErrorCode.REQUEST_TIMED_OUT, None)
        budget.release(taken_bytes)

    with_memory_broker(test)
