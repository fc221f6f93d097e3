"""README tells what is served; the table of handlers decides. They say the same."""

from __future__ import annotations

import re
from pathlib import Path

from warp.handlers.table import TABLE

README = Path(__file__).parents[2] / "README.md"


def test_readme_lists_every_api_with_the_versions_that_are_served() -> None:
    rows = re.findall(r"\| ([A-Z]\w+) \| (\d+)(?:–(\d+))? ", README.read_text())
    listed = {name: (int(low), int(high or low)) for name, low, high in rows}
    assert listed == {entry.name: entry.served for entry in TABLE}
