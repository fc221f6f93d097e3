"""docs/postgres.md quotes what agents say: each quoted line is one that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "postgres.md"
SOURCES = [
    *sorted((ROOT / "warp" / "metadata").glob("postgres*.py")),
    ROOT / "warp" / "metadata" / "migrate.py",
]
GAP = "…"
"""What stands in the document, and here, for whatever an agent fills in."""


def texts_of(path: Path) -> Iterator[str]:
    """The texts in a module, with a gap for each value that is put in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%\w", GAP, node.value)


def quoted_lines() -> list[str]:
    """The first column of the table of what can go wrong."""
    table = DOCUMENT.read_text().partition("## What can go wrong")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]


def test_every_line_that_the_document_quotes_is_one_that_agents_say() -> None:
    texts = "\n".join(text for path in SOURCES for text in texts_of(path))
    lines = quoted_lines()
    assert len(lines) > 20
    for line in lines:
        pattern = ".*".join(re.escape(piece.strip()) for piece in line.split(GAP))
        assert re.search(pattern, texts), line


def test_the_line_of_a_database_that_went_back_is_quoted_as_it_is() -> None:
    told = " ".join(DOCUMENT.read_text().split())
    [text] = [
        text for text in texts_of(ROOT / "warp" / "cluster" / "session.py") if "has lost what was" in text
    ]
    assert text.replace("{}", GAP) in told
