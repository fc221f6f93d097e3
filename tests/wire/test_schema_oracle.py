"""The message tables against two other descriptions of the protocol, message by message and version by version."""

from __future__ import annotations

import dataclasses

import pytest

from tests.wire.messages import MESSAGES, versions_of
from tests.wire.shapes import (
    Row,
    Shape,
    definition,
    ignorable_fields,
    shape_of_definition,
    shape_of_kio,
    shape_of_table,
    version_range,
)
from warp.protocol import APIS, Message
from warp.protocol.schema import Field, Struct

_LEFT_OUT = "None stands for a tagged struct that is left out, so that most answers need not make one"

# Fields whose default differs on purpose, and why.
INTENDED = {
    "ProduceResponse.responses.partition_responses.current_leader": _LEFT_OUT,
    "FetchRequest.replica_state": _LEFT_OUT,
    "FetchResponse.responses.partitions.diverging_epoch": _LEFT_OUT,
    "FetchResponse.responses.partitions.current_leader": _LEFT_OUT,
    "FetchResponse.responses.partitions.snapshot_id": _LEFT_OUT,
}


def names(message: type[Message]) -> str:
    return message.__name__


def flat(shape: Shape) -> list[Row]:
    """All rows of a shape, inner ones after the row that they are part of, without their parts."""
    rows = []
    for row in shape:
        rows.append(dataclasses.replace(row, parts=()))
        rows.extend(flat(row.parts))
    return rows


def comparable(shape: Shape) -> list[Row]:
    return [dataclasses.replace(row, default=None) if row.path in INTENDED else row for row in flat(shape)]


@pytest.mark.parametrize("message", MESSAGES, ids=names)
def test_tables_agree_with_the_definitions_of_kafka(message: type[Message]) -> None:
    if definition(message.__name__) is None:
        assert all(shape_of_kio(message.__name__, version) is not None for version in versions_of(message))
        return
    for version in versions_of(message):
        theirs = shape_of_definition(message.__name__, version)
        assert theirs is not None
        assert comparable(shape_of_table(message, version)) == comparable(theirs), f"v{version}"


@pytest.mark.parametrize("message", MESSAGES, ids=names)
def test_tables_agree_with_the_dataclasses_of_kio(message: type[Message]) -> None:
    for version in versions_of(message):
        theirs = shape_of_kio(message.__name__, version)
        assert theirs is not None, f"v{version}"
        ours = [
            dataclasses.replace(row, path="", default=None) for row in flat(shape_of_table(message, version))
        ]
        assert ours == [dataclasses.replace(row, path="") for row in flat(theirs)], f"v{version}"


@pytest.mark.parametrize("message", MESSAGES, ids=names)
def test_versions_and_flexibility_agree_with_the_definitions_of_kafka(message: type[Message]) -> None:
    found = definition(message.__name__)
    if found is None:
        assert message.flexible == 0
        return
    assert set(versions_of(message)) <= set(version_range(found["validVersions"]))
    flexible = version_range(found.get("flexibleVersions"))
    assert message.flexible == (flexible.start if flexible else None)


@pytest.mark.parametrize("message", MESSAGES, ids=names)
def test_what_may_be_dropped_silently_agrees_with_the_definitions_of_kafka(message: type[Message]) -> None:
    ignorable = ignorable_fields(message.__name__)
    if ignorable is None:
        return
    versions = set(versions_of(message))

    def check(struct: type[Struct], path: str, live: set[int]) -> None:
        one: Field
        for one in struct.__layout__.fields:
            here = f"{path}.{one.name}"
            has = {version for version in live if one.since <= version <= one.until}
            assert has, f"{here} is in no version"
            if has != live:
                assert one.ignorable == (here in ignorable), here
            if one.struct:
                check(one.struct, here, has)

    check(message, message.__name__, versions)


def test_every_intended_difference_is_still_one() -> None:
    differing = {
        ours.path
        for message in MESSAGES
        for version in versions_of(message)
        for ours, theirs in zip(
            flat(shape_of_table(message, version)),
            flat(shape_of_definition(message.__name__, version) or ()),
            strict=False,
        )
        if ours != theirs
    }
    assert differing == set(INTENDED)


def test_request_and_response_of_an_api_have_the_same_versions() -> None:
    for key, api in APIS.items():
        assert api.request.api is api.response.api is key
        assert api.request.versions == api.response.versions
        assert api.request.flexible == api.response.flexible
        assert api.name == api.response.__name__.removesuffix("Response")
