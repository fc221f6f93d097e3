"""The notation of the message tables: a class body is a table, and one native engine reads all of them.

    class FetchPartition(Struct):
        partition: int32
        current_leader_epoch: int32 = field(default=-1, since=9)  # KIP-320
        fetch_offset: int64

    class FetchRequest(Request, api=ApiKey.FETCH, versions=(4, 18), flexible=12):
        ...

Fields stand in wire order. Type checkers see plain int, str, bytes and list; `T | None` is a field that may be null,
in every version that has it unless `nullable=` names the first. A message object carries no version: fields that a
version lacks read as their default, and writing another value there is an error unless the field is `ignorable`.

Modules that declare tables must not postpone the evaluation of annotations (no ``from __future__ import annotations``),
because the tables are read while the class is made.
"""

import dataclasses
from collections.abc import Sequence
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeAlias, Union, dataclass_transform, get_args, get_origin

from warp._codec import Layout, StructBase
from warp.protocol.types import ApiKey

boolean = Annotated[bool, "boolean"]
int8 = Annotated[int, "int8"]
int16 = Annotated[int, "int16"]
uint16 = Annotated[int, "uint16"]
int32 = Annotated[int, "int32"]
uint32 = Annotated[int, "uint32"]
int64 = Annotated[int, "int64"]
float64 = Annotated[float, "float64"]
string = Annotated[str, "string"]
uuid = Annotated[bytes, "uuid"]
"""16 bytes."""
bytes_ = Annotated[bytes, "bytes"]

Buffer: TypeAlias = bytes | bytearray | memoryview
record_data = Annotated[Buffer, "records"]
"""Record batches that arrive: decoded as a memoryview of the frame, not copied."""
record_parts = Annotated[Buffer | Sequence[Buffer], "records"]
"""Record batches that leave: one buffer, or several that are sent one after the other."""

VERSION_MAX = 32767
NO_UUID = bytes(16)

_ZERO: dict[str, object] = {
    "boolean": False,
    "float64": 0.0,
    "string": "",
    "uuid": NO_UUID,
    "bytes": b"",
    "records": None,
    "struct": None,
}


class _Unset:
    """The default of a field that has to be given."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


@dataclasses.dataclass(frozen=True, slots=True)
class FieldOptions:
    """What a table says about a field besides its type; made by `field`."""

    default: Any
    default_factory: type[list[Any]] | None
    since: int
    until: int
    nullable: int | None
    tag: int | None
    ignorable: bool


def field(
    *,
    default: Any = UNSET,
    default_factory: type[list[Any]] | None = None,
    since: int = 0,
    until: int = VERSION_MAX,
    nullable: int | None = None,
    tag: int | None = None,
    ignorable: bool = False,
) -> Any:
    """Describe a field beyond its type.

    `default` makes it optional in Python and is what readers assume when it is not on the wire (without it: 0, False,
    empty; None for structs and records). `default_factory=list` does so for arrays. `since` and `until` are the first
    and last version that have it, `nullable` the first in which null is legal (otherwise all, when the type says
    ``| None``). With a `tag` the field stands in the tagged section and is left out at its default. `ignorable`: a
    value that the version cannot carry is dropped silently.
    """
    return FieldOptions(default, default_factory, since, until, nullable, tag, ignorable)


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One row of a table, as the engine and the tests read it.

    `kind` names the wire type of the value, or of an array's elements; "struct" goes with `struct`. `nullable` is the
    first version in which null is legal, or None. `initial` is the value when the field is not on the wire; where
    `starts_as_list` it is a new empty list.
    """

    name: str
    kind: str
    is_array: bool
    struct: "type[Struct] | None"
    since: int
    until: int
    nullable: int | None
    tag: int | None
    ignorable: bool
    required: bool
    initial: Any
    starts_as_list: bool


def _read_type(annotation: Any) -> tuple[str, "type[Struct] | None", bool, bool]:
    """The kind, struct, whether it is an array, and whether it may be null, of an annotation."""
    is_array = is_optional = False
    if get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation):
        is_optional = True
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if isinstance(annotation, GenericAlias) and get_origin(annotation) is list:
        is_array = True
        (annotation,) = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return "struct", annotation, is_array, is_optional
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[1], None, is_array, is_optional
    raise TypeError(f"{annotation!r} is no wire type")


def _make_field(name: str, annotation: Any, options: FieldOptions) -> Field:
    kind, struct, is_array, is_optional = _read_type(annotation)
    starts_as_list = is_array and options.default is not None
    initial = options.default
    if initial is UNSET:
        initial = None if is_array else _ZERO.get(kind, 0)
    nullable = None
    # A tagged struct that is None is one that is left out: the wire knows no null for it.
    if is_optional and not (struct and not is_array and options.tag is not None):
        nullable = options.since if options.nullable is None else options.nullable
    return Field(
        name=name,
        kind=kind,
        is_array=is_array,
        struct=struct,
        since=options.since,
        until=options.until,
        nullable=nullable,
        tag=options.tag,
        ignorable=options.ignorable,
        required=options.default is UNSET and options.default_factory is None,
        initial=initial,
        starts_as_list=starts_as_list,
    )


class StructType(type):
    """Reads a class body as a table: fields become slots, in wire order."""

    __layout__: Layout

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        versions: tuple[int, int] | None = None,
        flexible: int | None = None,
        **keywords: Any,
    ) -> "StructType":
        """Make the class and its layout."""
        if any(base.__layout__.fields for base in bases if isinstance(base, StructType)):
            raise TypeError(f"{name} extends a table")
        plain = field()
        fields = tuple(
            _make_field(key, annotation, namespace.pop(key, plain))
            for key, annotation in namespace.get("__annotations__", {}).items()
            if get_origin(annotation) is not ClassVar
        )
        namespace["__slots__"] = tuple(one.name for one in fields)
        if versions is not None:
            keywords.update(versions=versions, flexible=flexible)
        cls = super().__new__(mcs, name, bases, namespace, **keywords)
        cls.__layout__ = Layout(cls, fields, versions, flexible)
        return cls


@dataclass_transform(kw_only_default=True, eq_default=True, field_specifiers=(field,))
class Struct(StructBase, metaclass=StructType):
    """A part of messages: fields by keyword, equality and repr. Not hashable; treat decoded ones as values."""

    __layout__: ClassVar[Layout]


class Message(Struct):
    """A struct that travels on its own, in a range of versions, of which those from `flexible` on are flexible."""

    versions: ClassVar[tuple[int, int]]
    flexible: ClassVar[int | None]

    def __init_subclass__(
        cls,
        *,
        versions: tuple[int, int] | None = None,
        flexible: int | None = None,
        api: ApiKey | None = None,
    ) -> None:
        super().__init_subclass__()
        if versions is not None:
            cls.versions = versions
            cls.flexible = flexible
        if api is not None:
            cls.api = api  # type: ignore[attr-defined]

    @classmethod
    def is_flexible(cls, version: int) -> bool:
        """Whether that version has compact lengths and tagged fields."""
        return cls.flexible is not None and version >= cls.flexible


class Request(Message):
    """The body of a request."""

    api: ClassVar[ApiKey]


class Response(Message):
    """The body of a response."""

    api: ClassVar[ApiKey]
