"""Warp: a Kafka-protocol broker whose agents keep nothing and lead nothing.

Record data lives in an object store, facts about it in a metadata store; see ARCHITECTURE.md. The import name is
shared with NVIDIA's ``warp-lang``: the two cannot be installed into one environment.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

__all__ = ["__version__"]

_DISTRIBUTION = "warp-agent"


def _version() -> str:
    """The version that pyproject.toml states: read from there in a source tree, from the metadata when installed.

    The tree goes first, because the metadata of an editable install stays behind when the version changes.
    """
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == _DISTRIBUTION:
            return str(project["version"])
    # Loaded only here: it takes a twentieth of the time in which an agent starts.
    from importlib.metadata import version  # noqa: PLC0415

    return version(_DISTRIBUTION)


__version__ = _version()
