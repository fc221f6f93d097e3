"""The certificates of an agent over its life: read before it listens, looked at while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from warp.agent_settings import open_passwords, tls_settings
from warp.config import AgentConfig
from warp.security.tls import Tls

log = logging.getLogger("warp.agent")


class AgentTls:
    """What an agent serves TLS with; nothing where it has no certificate."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._watching: asyncio.Task[None] | None = None
        self.tls: Tls | None = None
        """None where there is no certificate."""

    def open(self) -> None:
        """Read the certificates, and look after them from now on. Raises StartError or UsageError."""
        for listener in open_passwords(self._config):
            log.warning(
                "--listen SASL_PLAINTEXT://%s with PLAIN: passwords cross the network in the clear; use SASL_SSL, or "
                "take PLAIN out of --sasl-mechanisms",
                listener,
            )
        settings = tls_settings(self._config)
        if settings is not None:
            self.tls = Tls(settings)
            self._watching = asyncio.get_running_loop().create_task(self.tls.watch())

    async def close(self) -> None:
        """Look after them no more."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
