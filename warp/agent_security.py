"""Builds what decides who a client is, what it may do and how much, out of the configuration and the catalogue.

`warp/security` knows nothing of the catalogue, nor the catalogue of it. Here each part is given the entries of its
kind, all of them at first, and then whatever changes.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from warp.clock import Clock
from warp.cluster.catalogue import CatalogueObserver, CatalogueService
from warp.config import AgentConfig
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.security.acl import NO_ACLS, Acl
from warp.security.acl_authorizer import AclAuthorizer
from warp.security.authorizer import OPEN, Authorizer
from warp.security.credentials import Credentials
from warp.security.mechanisms import Mechanisms, build_mechanisms
from warp.security.principal import parse_principal
from warp.security.quotas.quotas import Quotas

log = logging.getLogger("warp.agent")

EntriesChanged = Callable[[Mapping[str, str], Sequence[EntryChange]], None]
"""Is given all entries of a kind, and what has become of which; it must not raise, whatever a key or a value holds."""


class EntryFeed(CatalogueObserver):
    """Hands the entries of the catalogue to those that live by them."""

    def __init__(self, catalogue: CatalogueService) -> None:
        self._catalogue = catalogue
        self._takers: dict[EntryKind, list[EntriesChanged]] = {kind: [] for kind in EntryKind}
        catalogue.observe(self)

    def feed(self, kind: EntryKind, changed: EntriesChanged) -> None:
        """Hand the entries of a kind over now, each as a change, and again whenever some have changed."""
        entries = self._catalogue.entries(kind)
        changed(entries, [EntryChange(key, value) for key, value in entries.items()])
        self._takers[kind].append(changed)

    def entries_changed(
        self, kind: EntryKind, entries: Mapping[str, str], changes: Sequence[EntryChange]
    ) -> None:
        """See CatalogueObserver."""
        for changed in self._takers[kind]:
            try:
                changed(entries, changes)
            except Exception:  # a bug: logged, and the others must not miss what has changed
                log.exception("entries of kind %s were not taken over", kind.value)


@dataclass(frozen=True, slots=True)
class AgentSecurity:
    """The parts of an agent that have to do with security, each as the handlers and the server use it."""

    authorizer: Authorizer
    acls: Mapping[str, Acl]
    """Those in force, by key; none where authorization is off."""
    quotas: Quotas
    mechanisms: Mechanisms | None
    """How clients authenticate by SASL, and by passwords over HTTP; None where nobody does."""

    async def close(self) -> None:
        """Let go of threads and of what is fetched."""
        if self.mechanisms is not None:
            await self.mechanisms.close()


async def build_security(
    config: AgentConfig, catalogue: CatalogueService, clock: Clock, metadata: MetadataStore, metrics: Metrics
) -> AgentSecurity:
    """What a configuration asks for. The catalogue has been read; it is kept fresh from now on.

    Raises StartError, UsageError and MetadataError.
    """
    feed = EntryFeed(catalogue)
    catalogue.keep_fresh()
    authorizer = _authorizer(config, feed)
    mechanisms: Mechanisms | None = None
    if authenticates(config):
        mechanisms = _mechanisms(config, feed, clock, await metadata.peer_secret(), metrics)
    return AgentSecurity(
        authorizer=authorizer or OPEN,
        acls=NO_ACLS if authorizer is None else authorizer.acls,
        quotas=_quotas(feed, clock),
        mechanisms=mechanisms,
    )


def authenticates(config: AgentConfig) -> bool:
    """Does anybody say who he is by SASL or by a password?"""
    return config.http_authentication == "required" or any(listener.has_sasl for listener in config.listen)


def _authorizer(config: AgentConfig, feed: EntryFeed) -> AclAuthorizer | None:
    """By --authorization."""
    if config.authorization == "off":
        return None
    authorizer = AclAuthorizer(
        super_users=[parse_principal(text) for text in config.super_users],
        allow_if_no_acl=config.allow_if_no_acl,
        only_logs=config.authorization == "log",
    )
    feed.feed(EntryKind.ACL, authorizer.entries_changed)
    return authorizer


def _mechanisms(
    config: AgentConfig, feed: EntryFeed, clock: Clock, peer_secret: bytes, metrics: Metrics
) -> Mechanisms:
    """By --sasl-mechanisms. What is made up for users that don't exist is the same at all agents of a cluster."""
    credentials = Credentials(hmac.digest(peer_secret, b"credentials of users that do not exist", "sha256"))
    feed.feed(EntryKind.CREDENTIAL, credentials.entries_changed)
    mechanisms = build_mechanisms(config, credentials, clock, attempted=metrics.count_authentication)
    mechanisms.start()
    if mechanisms.keys_age_s is not None:
        metrics.token_keys_age_seconds.read = lambda: mechanisms.keys_age_s or 0.0
    return mechanisms


def _quotas(feed: EntryFeed, clock: Clock) -> Quotas:
    """As the catalogue has them."""
    quotas = Quotas(clock.monotonic)
    feed.feed(EntryKind.QUOTA, lambda entries, changes: quotas.load(entries))
    return quotas
