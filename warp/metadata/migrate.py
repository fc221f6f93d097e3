"""Brings a database up to this release's schema, and refuses one that this release can't work on.

Migrations only add, so the release before the one that brought a migration works on its schema too. A migration says so
in a line `-- works from schema: N`: releases that know the schema from version N on can go on using the database. Which
version a release must know at least is stored apart from the migrations that have run.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

from warp.errors import StartError


class Migration(NamedTuple):
    """One step of the schema: `statements` take it from version - 1 to version.

    `works_from` is the schema that a release must know at least to work on the new one; None: this very version.
    """

    version: int
    name: str
    statements: tuple[str, ...]
    works_from: int | None = None

    @property
    def needed_version(self) -> int:
        """The schema version that a release must know once this migration has run."""
        return self.version if self.works_from is None else self.works_from


def load_migrations(database: str) -> list[Migration]:
    """The migrations for a database (`sqlite`, `postgres`), by version from 1 on without gaps. Raises ValueError."""
    folder = resources.files("warp.metadata").joinpath("migrations", database)
    migrations = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", path.name)
        if match:
            text = path.read_text(encoding="utf-8")
            works_from = re.search(r"^-- works from schema: (\d+)$", text, flags=re.MULTILINE)
            migrations.append(
                Migration(
                    int(match[1]),
                    match[2],
                    split_statements(text),
                    None if works_from is None else int(works_from[1]),
                )
            )
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"the migrations for {database} are not numbered 1 to {len(migrations)}")
    return migrations


def split_statements(text: str) -> tuple[str, ...]:
    """A script's statements, which end in a semicolon at the end of a line. Comment lines are left out."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    pieces = re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE)
    return tuple(piece.strip() for piece in pieces if piece.strip())


def pending(
    migrations: list[Migration], applied_version: int, needed_version: int, where: str
) -> list[Migration]:
    """The migrations still to run: none when a newer release has run more than there are.

    Raises StartError when the schema needs a release that knows more than this one.
    """
    newest = migrations[-1].version
    if needed_version > newest:
        raise StartError(
            f"the metadata in {where} belongs to a newer release (schema {needed_version}, this one knows "
            f"{newest}): install that release, or use other metadata"
        )
    return migrations[applied_version:]
