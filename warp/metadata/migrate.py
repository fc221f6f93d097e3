"""Brings a database up to this release's schema, and refuses one that a newer release has written."""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

from warp.errors import StartError


class Migration(NamedTuple):
    """One step of the schema: `statements` take it from version - 1 to version."""

    version: int
    name: str
    statements: tuple[str, ...]


def load_migrations(database: str) -> list[Migration]:
    """The migrations for a database (`sqlite`, `postgres`), by version from 1 on without gaps. Raises ValueError."""
    folder = resources.files("warp.metadata").joinpath("migrations", database)
    migrations = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", path.name)
        if match:
            statements = split_statements(path.read_text(encoding="utf-8"))
            migrations.append(Migration(int(match[1]), match[2], statements))
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"the migrations for {database} are not numbered 1 to {len(migrations)}")
    return migrations


def split_statements(text: str) -> tuple[str, ...]:
    """A script's statements, which end in a semicolon at the end of a line. Comment lines are left out."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    pieces = re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE)
    return tuple(piece.strip() for piece in pieces if piece.strip())


def pending(migrations: list[Migration], current_version: int, where: str) -> list[Migration]:
    """The migrations still to run. Raises StartError when the schema is newer than all of them."""
    newest = migrations[-1].version
    if current_version > newest:
        raise StartError(
            f"the metadata in {where} belongs to a newer release (schema {current_version}, this one knows "
            f"{newest}): install that release, or use another data directory"
        )
    return migrations[current_version:]
