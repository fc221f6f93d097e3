"""The pytest plugin behind `warp.testing`; loaded through an entry point, so it imports little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from warp.testing import LocalAgent


@pytest.fixture(scope="session")
def warp_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    """One agent on a free port of the loopback address for the whole session, data in a temporary directory."""
    from warp.testing import LocalAgent  # noqa: PLC0415 - only when a test asks for an agent

    with LocalAgent(tmp_path_factory.mktemp("warp") / "data", "--log-level", "warning") as agent:
        yield agent
