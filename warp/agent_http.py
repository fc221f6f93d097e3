"""The HTTP face of one agent, by its configuration: its certificate, who may ask, and how other agents know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from warp.clock import Clock
from warp.cluster.catalogue import CatalogueObserver, CatalogueService
from warp.config import AgentConfig
from warp.config_values import Address
from warp.http.access import Access, BasicAuthentication
from warp.http.server import HttpServer
from warp.http.tls import CertificateHash, HttpTls
from warp.metadata.entries import EntryChange, EntryKind
from warp.metrics import Metrics
from warp.security.audit import Audit
from warp.security.authorizer import Authorizer
from warp.security.mechanisms import Mechanisms
from warp.security.tls import Tls


class AgentHttp:
    """What is served over HTTP, and by which certificate; `tls` has to be there for --http-tls."""

    def __init__(self, config: AgentConfig, address: Address, tls: Tls | None) -> None:
        self._config = config
        own: HttpTls | None = None
        self.certificate_hash: Callable[[], str] = lambda: ""
        """Of the certificate that is shown at the moment; empty without TLS."""
        if config.http_tls:
            assert tls is not None, "a configuration with --http-tls has certificates"
            own = HttpTls(tls.http_context, tls.certified)
            self.certificate_hash = CertificateHash(tls.http_context)
        self.server = HttpServer(address, tls=own)

    def access(
        self,
        mechanisms: Mechanisms | None,
        authorizer: Authorizer,
        audit: Audit,
        catalogue: CatalogueService,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        metrics: Metrics,
    ) -> Access | None:
        """Who may ask for what; None where everybody may ask for everything."""
        is_required = self._config.http_authentication == "required"
        if not is_required and not authorizer.is_on:
            return None
        passwords = None
        if is_required:
            assert mechanisms is not None, "they are there where anybody has to authenticate"
            passwords = BasicAuthentication(mechanisms.check_password, clock, random_bytes)
            catalogue.observe(_Forgetting(passwords))
        return Access(
            clock,
            passwords=passwords,
            authorizer=authorizer,
            audit=audit,
            count=metrics.count_http_refusal,
        )


class _Forgetting(CatalogueObserver):
    """Passwords that were right are checked anew once any credential has changed."""

    def __init__(self, passwords: BasicAuthentication) -> None:
        self._passwords = passwords

    def entries_changed(
        self, kind: EntryKind, entries: Mapping[str, str], changes: Sequence[EntryChange]
    ) -> None:
        """See CatalogueObserver."""
        if kind is EntryKind.CREDENTIAL:
            self._passwords.forget()
