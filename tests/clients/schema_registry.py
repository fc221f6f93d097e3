"""A schema registry that keeps all it knows in one compacted topic, record for record as Confluent's does."""

from __future__ import annotations

import json
from typing import Any, Self

from tests.clients.compacted_log import CompactedLog, ensure_topic

TOPIC = "_schemas"


def key_of(kind: str, **fields: Any) -> bytes:
    """A key as it stands in the topic."""
    return json.dumps({"keytype": kind, **fields}, separators=(",", ":")).encode()


class SchemaRegistry:
    """Subjects, their versions, and the ids of schemas. Use as a context manager: it reads its topic to the end first.

    On start it writes a NOOP record, and serves once that has come back: then it has read all that was written before.
    """

    def __init__(self, bootstrap: str, topic: str = TOPIC, **configs: str) -> None:
        ensure_topic(bootstrap, topic, 1, **configs)
        self.log = CompactedLog(bootstrap, topic)

    def __enter__(self) -> Self:
        self.log.__enter__()
        self.log.put(key_of("NOOP", magic=0), None)
        return self

    def __exit__(self, *arguments: object) -> None:
        self.log.__exit__(*arguments)

    def register(self, subject: str, schema: str) -> int:
        """The id of a schema that is the newest version of its subject from now on, unless it is a version already."""
        versions = self._versions(subject)
        known = [
            value["id"] for value in versions.values() if value["schema"] == schema and not value["deleted"]
        ]
        if known:
            return int(known[0])
        schema_id = self._id_of(schema)
        version = max(versions, default=0) + 1
        self._store(subject, version, schema_id, schema, is_deleted=False)
        return schema_id

    def schema(self, schema_id: int) -> str | None:
        """The schema with an id, also when its versions are deleted for now."""
        return next((value["schema"] for value in self._schemas() if value["id"] == schema_id), None)

    def subjects(self) -> dict[str, dict[int, int]]:
        """By subject, the ids of its versions that are not deleted."""
        found: dict[str, dict[int, int]] = {}
        for value in self._schemas():
            if not value["deleted"]:
                found.setdefault(value["subject"], {})[value["version"]] = value["id"]
        return found

    def delete(self, subject: str, version: int, *, permanently: bool = False) -> None:
        """Mark a version as deleted; permanently writes a tombstone, which only a marked one may get."""
        value = self._versions(subject)[version]
        if permanently:
            assert value["deleted"], "delete it first"
            self.log.put(self._key(subject, version), None)
        else:
            self._store(subject, version, value["id"], value["schema"], is_deleted=True)

    def set_compatibility(self, subject: str, level: str) -> None:
        """Which changes of a subject's schema are allowed."""
        self.log.put(
            key_of("CONFIG", subject=subject, magic=0), json.dumps({"compatibilityLevel": level}).encode()
        )

    def compatibility(self, subject: str) -> str | None:
        """What was set last."""
        stored = self.log.get(key_of("CONFIG", subject=subject, magic=0))
        return None if stored is None else str(json.loads(stored)["compatibilityLevel"])

    def state(self) -> dict[bytes, bytes]:
        """All it knows."""
        return self.log.rows()

    def _key(self, subject: str, version: int) -> bytes:
        return key_of("SCHEMA", subject=subject, version=version, magic=1)

    def _store(self, subject: str, version: int, schema_id: int, schema: str, *, is_deleted: bool) -> None:
        value = {
            "subject": subject,
            "version": version,
            "id": schema_id,
            "schema": schema,
            "deleted": is_deleted,
        }
        self.log.put(self._key(subject, version), json.dumps(value).encode())

    def _schemas(self) -> list[dict[str, Any]]:
        rows = self.log.rows()
        return [json.loads(rows[key]) for key in sorted(rows) if b'"keytype":"SCHEMA"' in key]

    def _versions(self, subject: str) -> dict[int, dict[str, Any]]:
        return {value["version"]: value for value in self._schemas() if value["subject"] == subject}

    def _id_of(self, schema: str) -> int:
        """The same schema has the same id in every subject."""
        found = [value["id"] for value in self._schemas() if value["schema"] == schema]
        return int(found[0]) if found else max((value["id"] for value in self._schemas()), default=0) + 1
