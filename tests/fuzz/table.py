"""The targets, and which Python modules the fuzzer watches the branches of in each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.target import Target


@dataclass(frozen=True)
class Entry:
    """A target by its module; loading it imports the product, so it is put off until that can be instrumented."""

    name: str
    instrumented: tuple[str, ...] = ()

    def load(self) -> Target:
        """The target itself."""
        target: Target = import_module(f"tests.fuzz.targets.{self.name}").TARGET
        return target


TABLE = {
    entry.name: entry
    for entry in (
        Entry("frames"),
        Entry("messages"),
        Entry("produce"),
        Entry("batches"),
        Entry("codecs"),
        Entry("compaction"),
        Entry("segments", ("warp.log.segment", "warp.lifecycle", "warp.cli.inspect")),
        Entry("requests", ("warp.handlers", "warp.cluster", "warp.groups", "warp.security")),
        Entry("sasl", ("warp.security",)),
        Entry("keys", ("warp.security.jwks", "warp.security.oauth")),
        Entry(
            "handshake", ("warp.security", "warp.server", "warp.handlers.sasl", "warp.handlers.api_versions")
        ),
        Entry("tls", ("warp.security.tls_endpoint", "warp.server")),
        Entry("http", ("warp.http", "warp.cluster.peer_auth", "warp.log.cache", "h11")),
        Entry("answers", ("warp.objectstore.s3", "h11")),
        Entry(
            "texts",
            ("warp.security", "warp.cluster", "warp.groups.subscription", "warp.ids", "warp.http.access"),
        ),
    )
}
