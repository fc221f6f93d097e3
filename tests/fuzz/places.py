"""Where things are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "fuzz"
"""The fuzz build; nothing else may be there."""
WORK: Final = ROOT / "build" / "fuzz-work"
"""Corpora, finds and logs, unless somebody says otherwise."""
