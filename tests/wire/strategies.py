"""Messages for the tests of this folder: one sample of each, and random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from warp.protocol import Message
from warp.protocol.schema import Field, Struct

INTEGER_BOUNDS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


def is_present(one: Field, version: int) -> bool:
    return one.since <= version <= one.until


def may_be_null(one: Field, version: int) -> bool:
    return one.nullable is not None and version >= one.nullable


def build(struct: type[Struct], version: int, value_of: Callable[[Field], Any]) -> Struct:
    """An instance whose fields hold `value_of(field)` where the version has them, and their default elsewhere."""
    fields: tuple[Field, ...] = struct.__layout__.fields
    values = {}
    for one in fields:
        if is_present(one, version):
            values[one.name] = value_of(one)
        else:
            values[one.name] = [] if one.starts_as_list else one.initial
    return struct(**values)


# ---- one sample ----


def sample(message: type[Message], version: int) -> Message:
    """A message with every field of that version set: two elements in each array, nothing null."""
    made = _sample_struct(message, version)
    assert isinstance(made, message)
    return made


def _sample_struct(struct: type[Struct], version: int) -> Struct:
    return build(struct, version, lambda one: _sample_field(one, version))


def _sample_field(one: Field, version: int) -> Any:
    if one.is_array:
        return [_sample_value(one, version), _sample_value(one, version)]
    return _sample_value(one, version)


def _sample_value(one: Field, version: int) -> Any:
    if one.struct:
        return _sample_struct(one.struct, version)
    simple = {
        "boolean": True,
        "float64": 0.5,
        "string": one.name[:5],
        "uuid": bytes(range(16)),
        "bytes": b"abc",
    }
    return simple.get(one.kind, b"\x01\x02\x03" if one.kind == "records" else 1)


# ---- random ones ----


def messages(message: type[Message], version: int, *, modest: bool = False) -> st.SearchStrategy[Message]:
    """Random messages of one version. `modest` ones hold values that every library represents."""
    return _structs(message, version, modest)  # type: ignore[return-value]


def every_version(
    message: type[Message], *, modest: bool = False
) -> st.SearchStrategy[list[tuple[int, Message]]]:
    """One random message for each version of its class."""
    versions = range(message.versions[0], message.versions[1] + 1)
    return st.tuples(*[messages(message, version, modest=modest) for version in versions]).map(
        lambda made: list(zip(versions, made, strict=True))
    )


def _structs(struct: type[Struct], version: int, modest: bool) -> st.SearchStrategy[Struct]:
    fields: tuple[Field, ...] = struct.__layout__.fields
    present = [one for one in fields if is_present(one, version)]
    names = [one.name for one in present]

    def made(values: tuple[Any, ...]) -> Struct:
        by_name = dict(zip(names, values, strict=True))
        return build(struct, version, lambda one: by_name[one.name])

    return st.tuples(*[_fields(one, version, modest) for one in present]).map(made)


def _fields(one: Field, version: int, modest: bool) -> st.SearchStrategy[Any]:
    values = _values(one, version, modest)
    if one.is_array:
        values = st.lists(values, max_size=2)
    is_left_out = one.struct is not None and one.tag is not None and not one.is_array
    if may_be_null(one, version) or is_left_out:
        values = st.none() | values
    return values


def _values(one: Field, version: int, modest: bool) -> st.SearchStrategy[Any]:
    if one.struct:
        return _structs(one.struct, version, modest)
    if one.kind in INTEGER_BOUNDS:
        low, high = (0, 100) if modest else INTEGER_BOUNDS[one.kind]
        return st.integers(low, high)
    others: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "float64": st.floats(allow_nan=False),
        "string": st.text("abc.-", max_size=5) if modest else st.text(max_size=5),
        "uuid": st.binary(min_size=16, max_size=16),
        "bytes": st.binary(max_size=5),
        "records": st.binary(min_size=1, max_size=5),
    }
    return others[one.kind]
