"""What a message looks like in one version, as three independent sources say: our tables, the JSON definitions that
kafka-python carries, and kio's dataclasses. A shape is a tuple of rows in wire order, tagged ones last.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import re
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

from kio.index import UnknownEntity, load_entity_schema
from kio.static.constants import EntityType

from warp.protocol.schema import Field, Message, Struct


@dataclasses.dataclass(frozen=True)
class Row:
    """One field of a shape; `default` is None where a source does not tell it."""

    path: str
    kind: str
    is_array: bool
    nullable: bool
    tag: int | None
    default: object
    parts: tuple[Row, ...] = ()


Shape = tuple[Row, ...]

ALL_DEFAULTS = "a struct that holds nothing but defaults"

_ZEROS: dict[str, object] = {
    "boolean": False,
    "float64": 0.0,
    "string": "",
    "uuid": bytes(16),
    "bytes": b"",
    "records": None,
}


def _in_order(rows: list[Row]) -> Shape:
    return tuple(sorted(rows, key=lambda row: -1 if row.tag is None else row.tag))


# ---- our tables ----


def shape_of_table(message: type[Message], version: int) -> Shape:
    return _table_rows(message, version, message.__name__)


def _table_rows(struct: type[Struct], version: int, path: str) -> Shape:
    present: list[Field] = [one for one in struct.__layout__.fields if one.since <= version <= one.until]
    return _in_order(
        [
            Row(
                path=f"{path}.{one.name}",
                kind=one.kind,
                is_array=one.is_array,
                nullable=one.nullable is not None and version >= one.nullable,
                tag=one.tag,
                default=[] if one.starts_as_list else one.initial,
                parts=_table_rows(one.struct, version, f"{path}.{one.name}") if one.struct else (),
            )
            for one in present
        ]
    )


# ---- kafka-python's JSON ----


def snake_case(name: str) -> str:
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@cache
def definition(name: str) -> dict[str, Any] | None:
    """Kafka's own definition of a message, comments removed; None when kafka-python has none."""
    file = importlib.resources.files("kafka.protocol.schemas.resources") / f"{name}.json"
    if not file.is_file():
        return None
    loaded: dict[str, Any] = json.loads(re.sub(r"(?m)^\s*//.*$", "", file.read_text(encoding="utf-8")))
    return loaded


def version_range(text: str | None) -> range:
    """The versions that a range such as "4", "4-7", "4+" or "none" stands for."""
    if text is None or text == "none":
        return range(0)
    first, _, last = text.removesuffix("+").partition("-")
    return range(int(first), 32768 if text.endswith("+") else int(last or first) + 1)


def shape_of_definition(name: str, version: int) -> Shape | None:
    found = definition(name)
    if found is None:
        return None
    common = {one["name"]: one["fields"] for one in found.get("commonStructs", [])}
    return _definition_rows(found["fields"], common, version, name)


def _definition_rows(
    fields: list[dict[str, Any]], common: dict[str, list[dict[str, Any]]], version: int, path: str
) -> Shape:
    rows = []
    for one in fields:
        if version not in version_range(one["versions"]):
            continue
        here = f"{path}.{snake_case(one['name'])}"
        kind = one["type"].removeprefix("[]")
        inner = one.get("fields") or common.get(kind, [])
        kind = "struct" if inner else {"bool": "boolean"}.get(kind, kind)
        rows.append(
            Row(
                path=here,
                kind=kind,
                is_array=one["type"].startswith("[]"),
                nullable=version in version_range(one.get("nullableVersions")),
                tag=one["tag"] if version in version_range(one.get("taggedVersions")) else None,
                default=_definition_default(one, kind),
                parts=_definition_rows(inner, common, version, here),
            )
        )
    return _in_order(rows)


def _definition_default(one: dict[str, Any], kind: str) -> object:
    text = one.get("default")
    if text == "null":
        return None
    if one["type"].startswith("[]"):
        return []
    if text is None:
        return ALL_DEFAULTS if kind == "struct" else _ZEROS.get(kind, 0)
    if kind == "boolean":
        return str(text).lower() == "true"
    if kind == "string":
        return str(text)
    return float(text) if kind == "float64" else int(str(text), 0)


def ignorable_fields(name: str) -> set[str] | None:
    """Paths of the fields that a writer may drop silently where the version lacks them."""
    found = definition(name)
    if found is None:
        return None
    common = {one["name"]: one["fields"] for one in found.get("commonStructs", [])}
    paths = set()

    def collect(fields: list[dict[str, Any]], path: str) -> None:
        for one in fields:
            here = f"{path}.{snake_case(one['name'])}"
            if str(one.get("ignorable", False)).lower() == "true":
                paths.add(here)
            collect(one.get("fields") or common.get(one["type"].removeprefix("[]"), []), here)

    collect(found["fields"], name)
    return paths


# ---- kio's dataclasses ----

_KIO_KINDS = {
    "bool": "boolean",
    "error_code": "int16",
    "timedelta_i32": "int32",
    "timedelta_i64": "int64",
    "datetime_i64": "int64",
}


def kio_class(name: str, version: int) -> type[Any] | None:
    """kio's dataclass of a message in one version; None when it has none."""
    api = snake_case(name.removesuffix("Request").removesuffix("Response"))
    try:
        if name.endswith("Request"):
            return load_entity_schema(api, version, EntityType.request)
        if name.endswith("Response"):
            return load_entity_schema(api, version, EntityType.response)
        return load_entity_schema(api, version, EntityType.data)
    except UnknownEntity:
        return None


def shape_of_kio(name: str, version: int) -> Shape | None:
    found = kio_class(name, version)
    return None if found is None else _kio_rows(found, name)


def _kio_rows(entity: type[Any], path: str) -> Shape:
    rows = []
    for one in dataclasses.fields(entity):
        here = f"{path}.{one.name}"
        inner: Any = one.type
        nullable = is_array = False
        if NoneType in get_args(inner):
            nullable = True
            (inner,) = [part for part in get_args(inner) if part is not NoneType]
        if get_origin(inner) is tuple:
            is_array = True
            inner = get_args(inner)[0]
        is_struct = dataclasses.is_dataclass(inner)
        kind = "struct" if is_struct else one.metadata["kafka_type"]
        rows.append(
            Row(
                path=here,
                kind=_KIO_KINDS.get(kind, kind),
                is_array=is_array,
                # kio's None is the zero UUID, and the timestamp -1.
                nullable=nullable and (is_array or kind not in ("uuid", "datetime_i64")),
                tag=one.metadata.get("tag"),
                default=None,
                parts=_kio_rows(inner, here) if isinstance(inner, type) and is_struct else (),
            )
        )
    return _in_order(rows)
