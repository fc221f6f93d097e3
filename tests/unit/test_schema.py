"""The notation of the message tables: what a class body declares, and what instances do."""

from __future__ import annotations

import copy
import gc
import pickle
import types
from typing import Any

import pytest

from warp.protocol import DecodeError, EncodeError, decode, encode
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.produce import ProducePartition, ProduceRequest
from warp.protocol.schema import (
    Message,
    Struct,
    StructType,
    boolean,
    bytes_,
    field,
    float64,
    int8,
    int16,
    int32,
    int64,
    string,
    uint16,
    uint32,
    uuid,
)


def table(name: str, base: type[Struct], fields: dict[str, Any], **keywords: Any) -> Any:
    """A table made at run time: `fields` maps names to a type, or to a type and its `field(...)`."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {
            key: value[0] if isinstance(value, tuple) else value for key, value in fields.items()
        }
        namespace.update({key: value[1] for key, value in fields.items() if isinstance(value, tuple)})

    return types.new_class(name, (base,), keywords, fill)


Inner: Any = table("Inner", Struct, {"a": int8, "b": (int16, field(default=-1, since=1))})
Outer = table(
    "Outer",
    Message,
    {
        "flag": boolean,
        "small": (uint16, field(default=7, until=1)),
        "large": (uint32, field(default=0, since=1, ignorable=True)),
        "ratio": (float64, field(default=0.0, since=1)),
        "identity": (uuid, field(default=bytes(16), since=1)),
        "name": (string | None, field(default="", nullable=2)),
        "payload": (bytes_, field(default=b"")),
        "numbers": (list[int64], field(default_factory=list)),
        "inner": (list[Inner], field(default_factory=list)),
        "single": (Inner | None, field(default=None, since=2)),
        "late": (int32, field(default=5, since=2, tag=1)),
        "early": (string, field(default="", since=2, tag=0)),
    },
    versions=(0, 3),
    flexible=2,
)


def test_a_version_without_a_field_reads_its_default() -> None:
    decoded = decode(Outer, 0, encode(Outer(flag=True), 0))
    assert decoded == Outer(flag=True)
    assert (decoded.large, decoded.ratio, decoded.identity) == (0, 0.0, bytes(16))
    assert (decoded.single, decoded.late) == (None, 5)
    assert decoded.numbers is not decode(Outer, 0, encode(Outer(flag=True), 0)).numbers


def test_the_layout_on_the_wire_is_that_of_the_protocol_guide() -> None:
    message = Outer(flag=True, name="n", payload=b"pp", numbers=[-1], inner=[Inner(a=1)])
    assert encode(message, 0) == (
        b"\x01" + b"\x00\x07" + b"\x00\x01n" + b"\x00\x00\x00\x02pp"
        b"\x00\x00\x00\x01" + b"\xff" * 8 + b"\x00\x00\x00\x01\x01"
    )
    full = Outer(
        flag=False, large=2**32 - 1, ratio=1.0, identity=b"i" * 16, name=None, payload=b"", numbers=[],
        inner=[Inner(a=-1, b=2)], single=Inner(a=3), late=6, early="e",
    )  # fmt: skip
    assert (
        encode(full, 2)
        == (
            b"\x00\xff\xff\xff\xff\x3f\xf0\x00\x00\x00\x00\x00\x00" + b"i" * 16 + b"\x00\x01\x01"
            b"\x02\xff\x00\x02\x00"  # one inner struct, its tagged section
            b"\x01\x03\xff\xff\x00"  # the nullable struct is there
            b"\x02\x00\x02\x02e\x01\x04\x00\x00\x00\x06"  # two tags
        )
    )
    assert decode(Outer, 2, encode(full, 2)) == full


def test_tagged_fields_at_their_default_are_left_out() -> None:
    assert encode(Outer(flag=True), 2).endswith(b"\x01\x01\x01\xff\x00")


@pytest.mark.parametrize(
    ("changes", "version", "said"),
    [
        ({"single": Inner(a=1)}, 1, "Outer.single: Inner(a=1, b=-1) in a version without the field"),
        ({"small": 8}, 2, "Outer.small: 8 in a version without the field"),
        ({"inner": [Inner(a=1, b=0)]}, 0, "Inner.b: 0 in a version without the field"),
        ({"name": None}, 1, "Outer.name: null where the version knows none"),
        ({"payload": None}, 3, "Outer.payload: null where the version knows none"),
        ({"numbers": None}, 3, "Outer.numbers: null where the version knows none"),
        ({"small": -1}, 0, "Outer.small: -1 does not fit"),
        ({"small": 2**16}, 0, "Outer.small: 65536 does not fit"),
        ({"large": 2**32}, 1, "Outer.large: 4294967296 does not fit"),
        ({"numbers": [2**63]}, 0, "Outer.numbers: 9223372036854775808 does not fit"),
        ({"inner": [Inner(a=128)]}, 0, "Inner.a: 128 does not fit"),
        ({"small": "1"}, 0, "Outer.small: '1' is no int"),
        ({"flag": 1}, 0, "Outer.flag: 1 is no bool"),
        ({"ratio": 1}, 1, "Outer.ratio: 1 is no float"),
        ({"identity": b"short"}, 1, "Outer.identity: b'short' is no UUID of 16 bytes"),
        ({"name": b"n"}, 0, "Outer.name: b'n' is no str"),
        ({"name": "\ud800"}, 0, "Outer.name: not UTF-8: surrogates not allowed"),
        ({"name": "n" * 32768}, 2, "Outer.name: a length of 32768"),
        ({"payload": "p"}, 0, "Outer.payload: 'p' is no bytes"),
        ({"numbers": {1}}, 0, "Outer.numbers: {1} is no list"),
        ({"inner": [Outer(flag=True)]}, 0, "is no Inner"),
        ({"inner": [None]}, 0, "Outer.inner: None is no Inner"),
    ],
)
def test_values_that_a_version_cannot_carry_are_refused(
    changes: dict[str, Any], version: int, said: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(Outer(**{"flag": True, **changes}), version)
    assert said in str(caught.value)


def test_what_is_ignorable_is_dropped_in_versions_without_the_field() -> None:
    assert encode(Outer(flag=True, large=5), 0) == encode(Outer(flag=True), 0)


def test_versions_outside_of_the_table_are_refused() -> None:
    for version in (-1, 4):
        with pytest.raises(ValueError, match=f"Outer has versions 0 to 3, not {version}"):
            encode(Outer(flag=True), version)
        with pytest.raises(ValueError, match="Outer has versions"):
            decode(Outer, version, b"")
    with pytest.raises(TypeError, match="Inner is a part of messages"):
        decode(Inner, 0, b"")


def test_a_nullable_struct_is_marked_by_1_or_minus_1() -> None:
    encoded = encode(Outer(flag=True), 2)
    assert encoded.endswith(b"\xff\x00")
    with pytest.raises(DecodeError, match=r"Outer.single at byte \d+: 2 where 1 or -1 says"):
        decode(Outer, 2, encoded[:-2] + b"\x02\x00")


def test_fields_without_a_default_have_to_be_given() -> None:
    with pytest.raises(TypeError, match="FetchTopic needs partitions"):
        FetchTopic(topic="t")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="FetchTopic has no partition"):
        FetchTopic(topic="t", partitions=[], partition=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="FetchTopic takes its fields by keyword"):
        FetchTopic("t", b"", [])  # type: ignore[call-arg]


def test_every_way_to_call_a_struct_class_fills_its_fields() -> None:
    made = ProducePartition(index=1, records=b"r")
    names = {"".join(["rec", "ords"]): b"r", "index": 1}
    assert ProducePartition(**names) == made  # type: ignore[arg-type]
    assert type.__call__(ProducePartition, index=1, records=b"r") == made
    again = ProducePartition.__new__(ProducePartition)
    with pytest.raises(AttributeError):
        assert again.index
    again.__init__(index=1, records=b"r")  # type: ignore[misc]
    assert again == made


def test_structs_are_compared_copied_and_shown_by_their_fields() -> None:
    made = MetadataRequest(topics=[MetadataRequestTopic(name="a")])
    same = MetadataRequest(topics=[MetadataRequestTopic(name="a")])
    assert made == same
    assert made != MetadataRequest(topics=None)
    assert made != "something else"
    assert copy.copy(made) == made
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert "topics=[MetadataRequestTopic(topic_id=b'" in repr(made)
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)


def test_fields_can_be_changed_but_no_others_added() -> None:
    partition = FetchPartition(partition=0, fetch_offset=1, partition_max_bytes=2)
    partition.fetch_offset = 5
    assert partition.fetch_offset == 5
    with pytest.raises(AttributeError):
        partition.offset = 1  # type: ignore[attr-defined]
    del partition.fetch_offset
    request = FetchRequest(max_wait_ms=0, min_bytes=0, topics=[FetchTopic(topic="t", partitions=[partition])])
    with pytest.raises(EncodeError, match=r"FetchPartition.fetch_offset: deleted"):
        encode(request, 4)


def test_defaults_that_are_lists_are_not_shared() -> None:
    one, other = Outer(flag=True), Outer(flag=True)
    one.numbers.append(1)
    assert other.numbers == []


def test_instances_are_given_back_whole() -> None:
    # More than the free lists keep, of several sizes, while values that they held stay alive.
    kept = []
    for _ in range(3):
        made = [Outer(flag=True, numbers=[index], inner=[Inner(a=1)]) for index in range(2000)]
        kept.append([one.numbers for one in made])
        del made
        gc.collect()
    assert kept[0] == kept[1] == kept[2] == [[index] for index in range(2000)]


def test_tables_are_not_extended() -> None:
    with pytest.raises(TypeError, match="Extended extends a table"):
        table("Extended", ProduceRequest, {"more": int8})


def test_what_is_no_wire_type_is_refused() -> None:
    for wrong in (int, list[int], dict, "int8"):
        with pytest.raises(TypeError, match="is no wire type"):
            table("Wrong", Struct, {"a": wrong})


def test_tables_are_classes_of_one_metaclass() -> None:
    assert type(Outer) is StructType
    assert not hasattr(Outer(flag=True), "__dict__")
